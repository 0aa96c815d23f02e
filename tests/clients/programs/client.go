// Go's own client with its defaults: URL FILE.

package main

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"os"
	"strings"
)

func main() {
	url, file := os.Args[1], os.Args[2]

	for call := 0; call < 5; call++ {
		answer, failure := http.Post(
			url+"/call", "application/json", strings.NewReader(fmt.Sprintf(`{"n":%d}`, call)))
		fmt.Println("call", said(answer, failure))
	}

	body, failure := os.Open(file)
	stopAt(failure)
	upload, failure := http.NewRequest("POST", url+"/upload", body)
	stopAt(failure)
	upload.Header.Set("Expect", "100-continue")
	told := false
	trace := &httptrace.ClientTrace{Got100Continue: func() { told = true }}
	answer, failure := http.DefaultClient.Do(
		upload.WithContext(httptrace.WithClientTrace(upload.Context(), trace)))
	fmt.Println("upload", said(answer, failure))
	if !told {
		panic("the gateway did not answer 100")
	}

	stream, failure := http.Get(url + "/stream")
	stopAt(failure)
	lines := bufio.NewScanner(stream.Body)
	for lines.Scan() {
		if lines.Text() != "" {
			fmt.Println("event", lines.Text())
		}
	}
	stopAt(lines.Err())
}

func said(answer *http.Response, failure error) string {
	stopAt(failure)
	defer answer.Body.Close()
	content, failure := io.ReadAll(answer.Body)
	stopAt(failure)
	return fmt.Sprint(answer.StatusCode, " ", string(content))
}

func stopAt(failure error) {
	if failure != nil {
		panic(failure)
	}
}
