// Callers in a closed loop, over TCP or a Unix socket, with or without TLS and client certificates.
package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"sort"
	"strconv"
	"strings"
	"time"
)

type loadOrder struct {
	Network, Address string // "tcp" or "unix", and where
	Head             string // of a request; %d for its number twice, then for its body's length
	Body             string // ends in }}; empty: none is sent, and the head has no %d
	Bodies           int    // how many lengths the bodies have, one more byte each
	Connections      int
	Seconds          float64
	Closes           bool   // each request on a connection of its own
	CaFile           string // empty: no TLS
	Certificate      string // of the callers, with its key; empty: none
}

type caller struct {
	order    loadOrder
	context  *tls.Config
	bodies   []string
	first    int // number of the first request, so that no two callers send the same
	stop     time.Time
	took     []int32 // µs
	failures map[string]int
	version  uint16
}

func load() {
	// One thread: the machine is shared with what is measured.
	runtime.GOMAXPROCS(1)
	var order loadOrder
	check(json.Unmarshal([]byte(os.Args[2]), &order))
	var context *tls.Config
	if order.CaFile != "" {
		pem, err := os.ReadFile(order.CaFile)
		check(err)
		context = &tls.Config{RootCAs: x509.NewCertPool(), ServerName: "localhost"}
		context.RootCAs.AppendCertsFromPEM(pem)
		if order.Certificate != "" {
			pair, err := tls.LoadX509KeyPair(order.Certificate, order.Certificate)
			check(err)
			context.Certificates = []tls.Certificate{pair}
		}
	}
	bodies := make([]string, order.Bodies)
	for n := range bodies {
		bodies[n] = strings.TrimSuffix(order.Body, "}}") + `,"note":"` + strings.Repeat("n", n) + `"}}`
	}
	began := time.Now()
	stop := began.Add(time.Duration(order.Seconds * float64(time.Second)))
	ended := make(chan *caller)
	for n := 0; n < order.Connections; n++ {
		one := &caller{order: order, context: context, bodies: bodies, first: n << 24, stop: stop,
			failures: map[string]int{}}
		go func() {
			one.run()
			ended <- one
		}()
	}
	var took []int32
	failures, version := map[string]int{}, uint16(0)
	for n := 0; n < order.Connections; n++ {
		one := <-ended
		took = append(took, one.took...)
		for kind, count := range one.failures {
			failures[kind] += count
		}
		if one.version > version {
			version = one.version
		}
	}
	us := time.Since(began).Microseconds()
	sort.Slice(took, func(i, j int) bool { return took[i] < took[j] })
	at := func(share float64) int32 {
		if len(took) == 0 {
			return 0
		}
		return took[int(share*float64(len(took)-1))]
	}
	said, err := json.Marshal(map[string]any{"requests": len(took), "us": us, "p50": at(0.5),
		"p99": at(0.99), "failures": failures, "tls": version})
	check(err)
	fmt.Println(string(said))
}

func (c *caller) run() {
	var connection net.Conn
	var reader *bufio.Reader
	defer func() {
		if connection != nil {
			connection.Close()
		}
	}()
	request := []byte(nil)
	for number := c.first; time.Now().Before(c.stop); number++ {
		request = c.request(request[:0], number)
		began := time.Now()
		if connection == nil {
			var err error
			if connection, err = c.connect(); err != nil {
				c.failed(err)
				return
			}
			reader = bufio.NewReaderSize(connection, 16384)
		}
		connection.SetDeadline(began.Add(10 * time.Second))
		_, err := connection.Write(request)
		if err == nil {
			err = read(reader)
		}
		if err != nil {
			c.failed(err)
			return
		}
		c.took = append(c.took, int32(time.Since(began).Microseconds()))
		if c.order.Closes {
			connection.Close()
			connection = nil
		}
	}
}

func (c *caller) failed(err error) {
	c.failures[err.Error()]++
}

func (c *caller) connect() (net.Conn, error) {
	plain, err := net.DialTimeout(c.order.Network, c.order.Address, 10*time.Second)
	if err != nil || c.context == nil {
		return plain, err
	}
	secure := tls.Client(plain, c.context)
	secure.SetDeadline(time.Now().Add(10 * time.Second))
	if err := secure.Handshake(); err != nil {
		plain.Close()
		return nil, err
	}
	c.version = secure.ConnectionState().Version
	return secure, nil
}

func (c *caller) request(into []byte, number int) []byte {
	if len(c.bodies) == 0 {
		return append(into, c.order.Head...)
	}
	body := c.bodies[number*197%len(c.bodies)]
	made := bytes.NewBuffer(into)
	fmt.Fprintf(made, c.order.Head, number, number, len(body))
	made.WriteString(body)
	return made.Bytes()
}

// Reads a response, which must be 200 and say its length.
func read(reader *bufio.Reader) error {
	line, err := reader.ReadSlice('\n')
	if err != nil {
		return err
	}
	if !bytes.HasPrefix(line, []byte("HTTP/1.1 200 ")) {
		return errors.New("answered " + strings.TrimSpace(string(line)))
	}
	length := -1
	for {
		line, err = reader.ReadSlice('\n')
		if err != nil {
			return err
		}
		if len(line) <= 2 {
			break
		}
		if len(line) > 15 && bytes.EqualFold(line[:15], []byte("content-length:")) {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(line[15:]))); err != nil {
				return err
			}
		}
	}
	if length < 0 {
		return errors.New("a response without its length")
	}
	_, err = io.CopyN(io.Discard, reader, int64(length))
	return err
}
