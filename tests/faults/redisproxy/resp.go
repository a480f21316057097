package redisproxy

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// maxBulk is what Redis itself takes at most.
const maxBulk = 512 << 20

var errFraming = errors.New("not the framing of RESP")

// frame is one whole value of RESP2 or RESP3 as it was on the wire.
type frame struct {
	raw []byte
	// first is the first bulk string in it: of a command, its name.
	first []byte
}

// readFrame reads one value, nested ones included, and understands of it no more than where it ends.
func readFrame(r *bufio.Reader) (frame, error) {
	var f frame
	err := f.read(r)
	return f, err
}

func (f *frame) read(r *bufio.Reader) error {
	line, err := r.ReadBytes('\n')
	if err != nil {
		return err // io.EOF: the other side ended between two frames
	}
	f.raw = append(f.raw, line...)
	if len(line) < 3 || line[len(line)-2] != '\r' {
		return errFraming
	}
	kind, text := line[0], string(line[1:len(line)-2])
	switch kind {
	case '+', '-', ':', '_', ',', '#', '(':
		return nil
	case '$', '=', '!':
		n, err := length(text, maxBulk)
		if err != nil || n < 0 {
			return err
		}
		body := make([]byte, n+2)
		if _, err := io.ReadFull(r, body); err != nil {
			return fmt.Errorf("bulk string: %w", err)
		}
		f.raw = append(f.raw, body...)
		if !bytes.HasSuffix(body, []byte("\r\n")) {
			return errFraming
		}
		if f.first == nil {
			f.first = body[:n]
		}
		return nil
	case '*', '~', '>', '%', '|':
		n, err := length(text, maxBulk)
		if err != nil {
			return err
		}
		if kind == '%' || kind == '|' {
			n *= 2
		}
		if kind == '|' {
			n++ // attributes stand before the value that they belong to
		}
		for range max(0, n) {
			if err := f.read(r); err != nil {
				return err
			}
		}
		return nil
	}
	return errFraming
}

// length reads a count of bytes or elements; -1 is RESP2's null.
func length(text string, limit int) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < -1 || n > limit {
		return 0, errFraming
	}
	return n, nil
}
