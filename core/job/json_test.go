package job_test

import (
	"encoding/json"
	"math/big"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/relay-jobs/relay/core/job"
)

func TestSameJSON(t *testing.T) {
	const huge = "99999999999999999999"
	for name, c := range map[string]struct {
		a, b job.JSON
		want bool
	}{
		"same text":                        {`{"a":1}`, `{"a":1}`, true},
		"spacing":                          {`{"a":[1,2]}`, " { \"a\" : [ 1 ,\n2 ] }\t", true},
		"order of members":                 {`{"a":1,"b":{"c":2,"d":3}}`, `{"b":{"d":3,"c":2},"a":1}`, true},
		"order of elements":                {`[1,2]`, `[2,1]`, false},
		"a member more":                    {`{"a":1}`, `{"a":1,"b":null}`, false},
		"another member":                   {`{"a":null}`, `{"b":null}`, false},
		"an element more":                  {`[1]`, `[1,null]`, false},
		"empty object and array":           {`{}`, `[]`, false},
		"null and absent":                  {`{"a":null}`, `{}`, false},
		"null and false":                   {`null`, `false`, false},
		"zero and false":                   {`0`, `false`, false},
		"number and its text":              {`1`, `"1"`, false},
		"string and array":                 {`"a"`, `["a"]`, false},
		"true":                             {`[true]`, `[ true ]`, true},
		"true and false":                   {`true`, `false`, false},
		"escapes":                          {`"\u0061\/\u00e9"`, `"a/é"`, true},
		"surrogates":                       {`"\ud83d\ude42"`, `"🙂"`, true},
		"forms of Unicode":                 {"\"e\\u0301\"", `"é"`, false},
		"escaped names":                    {`{"\u0061":1}`, `{"a":1}`, true},
		"capitals":                         {`{"a":1}`, `{"A":1}`, false},
		"integer and fraction":             {`1`, `1.0`, true},
		"exponent":                         {`1`, `10e-1`, true},
		"capital exponent with sign":       {`100`, `1E+2`, true},
		"exponent with zeros":              {`1e2`, `1e0002`, true},
		"leading zeros of a fraction":      {`0.05`, `5e-2`, true},
		"more zeros of a fraction":         {`0.000500`, `5.0e-4`, true},
		"zeros on both sides":              {`0.0100e+3`, `10`, true},
		"whole and fraction":               {`12.5`, `125e-1`, true},
		"zeros of another size":            {`10`, `100`, false},
		"fraction of another size":         {`0.5`, `0.05`, false},
		"zero":                             {`0`, `0.000e10`, true},
		"negative zero":                    {`-0`, `0`, true},
		"negative zero with exponent":      {`-0.0e-5`, `0`, true},
		"sign":                             {`-1`, `1`, false},
		"negative":                         {`-1.50`, `-15e-1`, true},
		"big integers":                     {`12345678901234567890123`, `12345678901234567890124`, false},
		"big integers alike":               {`12345678901234567890123`, `1234567890123456789012300e-2`, true},
		"beyond float64":                   {`1e400`, `10e399`, true},
		"beyond float64, other":            {`1e400`, `1e401`, false},
		"below float64":                    {`1e-400`, `0`, false},
		"a digit that float64 drops":       {`0.1`, `0.10000000000000000001`, false},
		"around 2^31":                      {`1e2147483648`, `10e2147483647`, true},
		"around -2^31":                     {`1e-2147483649`, `0.1e-2147483648`, true},
		"around 2^63":                      {`1e9223372036854775808`, `0.1e9223372036854775809`, true},
		"huge exponent":                    {"1e" + huge, "1e+" + huge, true},
		"huge exponent with zeros":         {"1e" + huge, "1e00" + huge, true},
		"huge exponent written otherwise":  {"10e" + huge, "1e100000000000000000000", true},
		"huge exponents that differ":       {"1e" + huge, "1e99999999999999999998", false},
		"huge exponents of another sign":   {"1e" + huge, "1e-" + huge, false},
		"huge negative exponent":           {"0.1e-" + huge, "1e-100000000000000000000", true},
		"huge exponents, digits apart":     {"1e" + huge, "2e" + huge, false},
		"zero with a huge exponent":        {"0e" + huge, "0", true},
		"duplicates: the last counts":      {`{"a":1,"a":2}`, `{"a":2}`, true},
		"duplicates: the first doesn't":    {`{"a":1,"a":2}`, `{"a":1}`, false},
		"deep":                             {nested("[", 500), nested("[ ", 500), true},
		"deep, one less":                   {nested("[", 500), nested("[", 499), false},
		"no values, same text":             {`{`, `{`, false},
		"none":                             {``, ``, false},
		"none and null":                    {``, `null`, false},
		"more than one value":              {`1`, `1 1`, false},
		"something behind":                 {`{}`, `{}}`, false},
		"leading zero is no JSON":          {`01`, `1`, false},
		"not a number":                     {`NaN`, `NaN`, false},
		"not UTF-8 against its substitute": {"\"\xff\"", `"\ufffd"`, false},
		"not UTF-8":                        {"\"\xff\"", "\"\xff\"", false},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, c.want, job.SameJSON(c.a, c.b))
			require.Equal(t, c.want, job.SameJSON(c.b, c.a))
		})
	}
}

func nested(open string, n int) job.JSON {
	return job.JSON(strings.Repeat(open, n) + strings.Repeat("]", n))
}

func TestSameJSONOfLongExponents(t *testing.T) {
	// Longer than is worked out: still equal to itself under other spacing, and to nothing else.
	long := job.JSON("1e" + strings.Repeat("9", 5000))
	require.True(t, job.SameJSON(long, long+" "))
	require.False(t, job.SameJSON(long, "1e"+job.JSON(strings.Repeat("9", 4999))))
	require.False(t, job.SameJSON(long, "1e-"+job.JSON(strings.Repeat("9", 5000))))
	require.False(t, job.SameJSON(long, "-"+long))
	require.False(t, job.SameJSON(long, "10e"+job.JSON(strings.Repeat("9", 5000))))
}

// Numbers are equal as JSON where they are equal as fractions.
func TestSameJSONOfNumbersIsArithmetic(t *testing.T) {
	number := rapid.StringMatching(`-?(0|[1-9][0-9]{0,3})(\.[0-9]{1,4})?([eE][+-]?[0-9]{1,2})?`)
	rapid.Check(t, func(t *rapid.T) {
		a, b := number.Draw(t, "a"), number.Draw(t, "b")
		if rapid.Bool().Draw(t, "shifted") { // the same number in another form is rare by chance
			f, ok := new(big.Rat).SetString(a)
			require.True(t, ok)
			b = f.Mul(f, big.NewRat(1000, 1)).FloatString(110) + "e-3"
		}
		fa, okA := new(big.Rat).SetString(a)
		fb, okB := new(big.Rat).SetString(b)
		require.True(t, okA && okB)
		require.Equal(t, fa.Cmp(fb) == 0, job.SameJSON(job.JSON(a), job.JSON(b)), "%s and %s", a, b)
	})
}

// A value written by another encoder, with other spacing and order, stays the same value.
func TestSameJSONSurvivesAnotherEncoder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		value := rapid.MapOf(rapid.String(), rapid.SliceOf(rapid.OneOf(
			rapid.Map(rapid.String(), func(s string) any { return s }),
			rapid.Map(rapid.Int64(), func(n int64) any { return n }),
			rapid.Map(rapid.Bool(), func(b bool) any { return b }),
		))).Draw(t, "value")
		plain, err := json.Marshal(value)
		require.NoError(t, err)
		indented, err := json.MarshalIndent(value, " ", "\t")
		require.NoError(t, err)
		require.True(t, job.SameJSON(job.JSON(plain), job.JSON(indented)))
		require.True(t, job.SameJSON(job.JSON(plain), job.JSON(plain)))
		require.False(t, job.SameJSON(job.JSON(plain), job.JSON("["+string(plain)+"]")))
	})
}

func TestJSONOf(t *testing.T) {
	for name, c := range map[string]struct {
		stored string
		want   job.JSON
	}{
		"none":                 {``, ``},
		"object":               {`{"b":1, "a":2}`, `{"b":1, "a":2}`},
		"number as written":    {`1.0e+05`, `1.0e+05`},
		"null":                 {`null`, `null`},
		"string":               {`"a"`, `"a"`},
		"spaces around":        {" 1\n", " 1\n"},
		"a word":               {`done`, `"done"`},
		"Python's dict":        {`{'a': True}`, `"{'a': True}"`},
		"not a number":         {`NaN`, `"NaN"`},
		"infinity in a list":   {`[Infinity]`, `"[Infinity]"`},
		"cut off":              {`{"a":`, `"{\"a\":"`},
		"two values":           {`1 2`, `"1 2"`},
		"only a space":         {` `, `" "`},
		"no HTML escapes":      {`<a href="x">&`, `"<a href=\"x\">&"`},
		"control characters":   {"a\n\x00", `"a\n\u0000"`},
		"not UTF-8":            {"a\xffb", `"a\ufffdb"`},
		"not UTF-8 in a value": {"\"a\xffb\"", `"\"a\ufffdb\""`},
		"beyond ASCII":         {`да 🙂`, `"да 🙂"`},
	} {
		t.Run(name, func(t *testing.T) {
			got := job.JSONOf(c.stored)
			require.Equal(t, c.want, got)
			require.Equal(t, c.stored != "", got.Valid())
		})
	}
}

func TestJSONOfGivesJSON(t *testing.T) {
	stored := rapid.Custom(func(t *rapid.T) string { return string(rapid.SliceOf(rapid.Byte()).Draw(t, "bytes")) })
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.OneOf(stored, rapid.String()).Draw(t, "stored")
		got := job.JSONOf(text)
		require.Equal(t, text != "", got.Valid())
		require.Equal(t, got, job.JSONOf(string(got)), "once is enough")
		if text == "" || got == job.JSON(text) {
			return
		}
		var back string
		require.NoError(t, json.Unmarshal([]byte(got), &back))
		require.Equal(t, strings.ToValidUTF8(text, "\ufffd") == text, back == text)
	})
}

func TestJSONEncodesAsItself(t *testing.T) {
	out, err := json.Marshal(map[string]job.JSON{"a": `[1.0,1e400]`, "b": ``})
	require.NoError(t, err)
	require.True(t, string(out) == `{"a":[1.0,1e400],"b":null}`, "%s", out) //nolint:testifylint // the bytes count
}
