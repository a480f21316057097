package job

import (
	"bytes"
	"encoding/json"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// JSON is the text of one JSON value, or empty for none. It is immutable.
type JSON string

// JSONOf makes a JSON of a stored text: a text that is a JSON value stays as it is, any other non-empty text becomes
// a JSON string.
func JSONOf(stored string) JSON {
	if stored == "" || JSON(stored).Valid() {
		return JSON(stored)
	}
	return JSON(quote(stored))
}

// quote writes s as a JSON string without HTML escapes; bytes that are not UTF-8 become U+FFFD.
func quote(s string) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s); err != nil { // a string always encodes
		return []byte(`""`)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// Valid tells whether v is exactly one JSON value in UTF-8.
func (v JSON) Valid() bool {
	return utf8.ValidString(string(v)) && json.Valid([]byte(v))
}

// MarshalJSON gives the value itself, null for none.
func (v JSON) MarshalJSON() ([]byte, error) {
	if v == "" {
		return []byte("null"), nil
	}
	return []byte(v), nil
}

// SameJSON tells whether a and b are the same JSON value: members in any order, numbers by what they are worth
// however they are written, strings by their characters. Of a member that is given twice the last counts. Texts that
// are no JSON values are equal to nothing.
func SameJSON(a, b JSON) bool {
	if a == b {
		return a.Valid()
	}
	va, okA := decode(a)
	vb, okB := decode(b)
	return okA && okB && sameValue(va, vb)
}

func decode(v JSON) (any, bool) {
	dec := json.NewDecoder(strings.NewReader(string(v)))
	dec.UseNumber()
	var out any
	err := dec.Decode(&out)
	return out, err == nil && v.Valid()
}

func sameValue(a, b any) bool {
	switch a := a.(type) {
	case json.Number:
		b, ok := b.(json.Number)
		return ok && decimalOf(a) == decimalOf(b)
	case []any:
		b, ok := b.([]any)
		return ok && slices.EqualFunc(a, b, sameValue)
	case map[string]any:
		b, ok := b.(map[string]any)
		if !ok || len(a) != len(b) {
			return false
		}
		for k, v := range a {
			w, ok := b[k]
			if !ok || !sameValue(v, w) {
				return false
			}
		}
		return true
	}
	return a == b
}

// maxExponentText is the length up to which exponents are compared by their worth; longer ones are equal only where
// they are written alike.
const maxExponentText = 1000

// decimal is a number in one form: 0.DIGITS × 10^exponent, digits without zeros at either end. It holds any exponent
// that a text can write without computing the number.
type decimal struct {
	negative bool
	digits   string
	exponent string
}

func decimalOf(n json.Number) decimal {
	text := string(n)
	var d decimal
	text, d.negative = strings.CutPrefix(text, "-")
	mantissa, exp := text, "0"
	if i := strings.IndexAny(text, "eE"); i >= 0 {
		mantissa, exp = text[:i], text[i+1:]
	}
	whole, fraction, _ := strings.Cut(mantissa, ".")
	digits := strings.TrimLeft(whole+fraction, "0")
	leading := len(whole) - (len(whole+fraction) - len(digits))
	d.digits = strings.TrimRight(digits, "0")
	if d.digits == "" {
		return decimal{}
	}
	if len(exp) > maxExponentText { // to work it out costs more than such a number is worth
		d.exponent = exp + "+" + strconv.Itoa(leading)
		return d
	}
	e, _ := new(big.Int).SetString(exp, 10) // the grammar leaves nothing but digits behind a sign
	d.exponent = e.Add(e, big.NewInt(int64(leading))).String()
	return d
}
