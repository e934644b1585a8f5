package testlab

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
)

// FlipBit changes one bit in the middle of the request's body, or of the answer's where the request has none.
func FlipBit(w http.ResponseWriter, r *http.Request, upstream http.Handler) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler) // the client went away
	}
	if len(body) > 0 {
		body[len(body)/2] ^= 1
		r.Body = io.NopCloser(bytes.NewReader(body))
		upstream.ServeHTTP(w, r)
		return
	}
	reply := httptest.NewRecorder()
	r.Body = http.NoBody
	upstream.ServeHTTP(reply, r)
	copyHead(w, reply)
	answer := reply.Body.Bytes()
	if len(answer) > 0 {
		answer[len(answer)/2] ^= 1
	}
	_, _ = w.Write(answer) // the client went away
}
