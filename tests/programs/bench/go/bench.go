// What of the benchmark is written in Go: a service of net/http that reads bodies in pieces of
// 32 KiB, as io.Copy does, the proxy httputil.ReverseProxy, and a load of callers with client
// certificates or on a Unix socket, which wrk cannot make. Built by tests/programs/bench/services.py
// with GO111MODULE=off; nothing but the standard library.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
)

const prefix = "/v1/infers/"

var small = []byte(`{"meta":{"uuid":"10eb0091-887f-4839-9929-cbc884f1e20e"},"data":{"resp_data":` +
	`[{"sepal_length":3,"sepal_width":1,"petal_length":2.2,"predictresult":"1"}]}}`)

type order struct {
	Token       string
	Certificate string            // service: of the TLS listener, with its key
	Listen      int               // proxy
	Routes      map[string]string // proxy: first part of the path, and scheme and authority
	CaFile      string            // proxy
}

func main() {
	var given order
	check(json.Unmarshal([]byte(os.Args[2]), &given))
	switch os.Args[1] {
	case "service":
		serve(given)
	case "proxy":
		forward(given)
	case "load":
		load()
	}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func serve(given order) {
	var accepted, refused, bodyBytes int64
	large := []byte(strings.Repeat("0123456789abcdef", 65536))
	handle := func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/counts" {
			fmt.Fprintf(w, `{"accepted": %d, "refused": %d, "body_bytes": %d}`,
				atomic.LoadInt64(&accepted), atomic.LoadInt64(&refused), atomic.LoadInt64(&bodyBytes))
			return
		}
		buffer, size := make([]byte, 32768), int64(0)
		for {
			count, err := r.Body.Read(buffer)
			size += int64(count)
			if err != nil {
				break
			}
		}
		tokens := r.Header.Values("X-Auth-Token")
		if len(tokens) != 1 || tokens[0] != given.Token || !strings.HasPrefix(r.URL.Path, prefix) {
			atomic.AddInt64(&refused, 1)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if size == r.ContentLength || r.ContentLength < 0 {
			atomic.AddInt64(&accepted, 1)
			atomic.AddInt64(&bodyBytes, size)
		}
		answer := small
		if strings.HasSuffix(r.URL.Path, "/large") {
			answer = large
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", fmt.Sprint(len(answer)))
		w.Write(answer)
	}
	pair, err := tls.LoadX509KeyPair(given.Certificate, given.Certificate)
	check(err)
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	secure, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	fmt.Printf("{\"plain\": %d, \"secure\": %d}\n",
		plain.Addr().(*net.TCPAddr).Port, secure.Addr().(*net.TCPAddr).Port)
	server := &http.Server{Handler: http.HandlerFunc(handle)}
	context := &tls.Config{Certificates: []tls.Certificate{pair}, NextProtos: []string{"http/1.1"}}
	go server.Serve(tls.NewListener(secure, context))
	check(server.Serve(plain))
}

func forward(given order) {
	pem, err := os.ReadFile(given.CaFile)
	check(err)
	trusted := x509.NewCertPool()
	trusted.AppendCertsFromPEM(pem)
	targets := map[string]*url.URL{}
	for name, text := range given.Routes {
		targets[name], err = url.Parse(text)
		check(err)
	}
	proxy := &httputil.ReverseProxy{
		Director: func(r *http.Request) {
			name := strings.SplitN(strings.TrimPrefix(r.URL.Path, "/"), "/", 2)[0]
			if target := targets[name]; target != nil {
				r.URL.Scheme, r.URL.Host, r.Host = target.Scheme, target.Host, target.Host
			}
			r.URL.Path = prefix + strings.TrimPrefix(r.URL.Path, "/")
			r.Header.Set("X-Auth-Token", given.Token)
		},
		Transport: &http.Transport{
			MaxIdleConns:        0,
			MaxIdleConnsPerHost: 1024,
			DisableCompression:  true,
			TLSClientConfig:     &tls.Config{RootCAs: trusted, ServerName: "localhost"},
		},
		FlushInterval: -1,
	}
	check(http.ListenAndServe(fmt.Sprintf("127.0.0.1:%d", given.Listen), proxy))
}
