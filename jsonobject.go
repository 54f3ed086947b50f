package conntrack

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"time"
)

// A jsonObject writes the fields of a JSON object, or reads them. The same
// function does either: it calls one of those below for each field, with the name
// and a pointer to the value. So what is written and what is read cannot differ.
type jsonObject struct {
	in  map[string]json.RawMessage // what is read, or nil
	out []byte                     // what was written

	path string // that leads to the object, such as orig.
	err  error  // the first one
}

// jsonValues are the fields of a value of type T.
type jsonValues[T any] = func(*T, *jsonObject)

func marshalJSON(fields func(*jsonObject)) ([]byte, error) {
	o := jsonObject{out: []byte{'{'}}
	fields(&o)
	return append(o.out, '}'), o.err
}

// unmarshalJSON sets v to what b says if it can all be read. As is the custom,
// null changes nothing.
func unmarshalJSON[T any](b []byte, v *T, fields jsonValues[T]) error {
	var o jsonObject
	if err := json.Unmarshal(b, &o.in); err != nil {
		return fmt.Errorf("conntrack: %w", err)
	}
	if !o.reading() {
		return nil
	}
	var read T
	if fields(&read, &o); o.err != nil {
		return o.err
	}
	*v = read
	return nil
}

func (o *jsonObject) reading() bool { return o.in != nil }

// has reports whether there is a field of that name to be read.
func (o *jsonObject) has(name string) bool {
	raw, ok := o.in[name]
	return ok && string(raw) != "null"
}

// leavesOut reports whether v is left out: if it is zero, and is not read.
func leavesOut[T comparable](o *jsonObject, v *T) bool {
	var zero T
	return !o.reading() && *v == zero
}

// fail keeps the error about the field of that name, if it is the first one.
func (o *jsonObject) fail(name, value string, err error) {
	if o.err == nil {
		o.err = fmt.Errorf("conntrack: JSON field %s%s is %.60s: %w", o.path, name, value, err)
	}
}

// writeName begins a field.
func (o *jsonObject) writeName(name string) {
	if o.out[len(o.out)-1] != '{' {
		o.out = append(o.out, ',')
	}
	o.out = append(o.out, '"')
	o.out = append(o.out, name...)
	o.out = append(o.out, '"', ':')
}

// object is about a field that is an object with the given fields. If it has
// none, it is left out, or written as empty.
func (o *jsonObject) object(name string, empty bool, fields func(*jsonObject)) {
	if o.reading() {
		o.readObject(name, fields)
		return
	}
	before := len(o.out)
	o.writeName(name)
	o.out = append(o.out, '{')
	start := len(o.out)
	fields(o)
	if len(o.out) == start && !empty {
		o.out = o.out[:before]
		return
	}
	o.out = append(o.out, '}')
}

func (o *jsonObject) readObject(name string, fields func(*jsonObject)) {
	if !o.has(name) {
		return
	}
	raw := o.in[name]
	inner := jsonObject{path: o.path + name + "."}
	if json.Unmarshal(raw, &inner.in) != nil {
		o.fail(name, string(raw), errors.New("want an object"))
		return
	}
	fields(&inner)
	if o.err == nil {
		o.err = inner.err
	}
}

// jsonPointer is about a field that is an object, or left out where the pointer
// is nil.
func jsonPointer[T any](o *jsonObject, name string, v **T, fields jsonValues[T]) {
	if o.has(name) {
		*v = new(T)
	}
	if *v != nil {
		o.object(name, true, func(o *jsonObject) { fields(*v, o) })
	}
}

// jsonValue is about a field that is written whatever its value is.
func jsonValue[T any](o *jsonObject, name string, v *T,
	write func([]byte, T) ([]byte, error), read func(raw []byte) (T, error),
) {
	if !o.reading() {
		o.writeName(name)
		b, err := write(o.out, *v)
		o.out = b
		if err != nil {
			o.fail(name, fmt.Sprint(*v), err)
		}
		return
	}
	if o.has(name) {
		value, err := read(o.in[name])
		*v = value
		if err != nil {
			o.fail(name, string(o.in[name]), err)
		}
	}
}

type jsonInteger interface {
	~uint8 | ~uint16 | ~uint32 | ~uint64
}

func jsonNumber[T jsonInteger](o *jsonObject, name string, v *T) {
	if !leavesOut(o, v) {
		jsonAnyNumber(o, name, v)
	}
}

// jsonAnyNumber is jsonNumber for a field for which zero is a value.
func jsonAnyNumber[T jsonInteger](o *jsonObject, name string, v *T) {
	jsonValue(o, name, v, func(b []byte, n T) ([]byte, error) {
		return strconv.AppendUint(b, uint64(n), 10), nil
	}, func(raw []byte) (T, error) {
		n, err := strconv.ParseUint(string(raw), 10, 64)
		if err != nil || uint64(T(n)) != n {
			return 0, fmt.Errorf("want a whole number from 0 to %d", ^T(0))
		}
		return T(n), nil
	})
}

// jsonImpliedBool is about a field that is left out where it is as implied.
func jsonImpliedBool(o *jsonObject, name string, v *bool, implied bool) {
	if o.reading() {
		*v = implied
	} else if *v == implied {
		return
	}
	jsonValue(o, name, v, func(b []byte, v bool) ([]byte, error) {
		return strconv.AppendBool(b, v), nil
	}, readAs[bool])
}

// jsonName is about a number that is written as the name that E has for it, or as
// itself if there is none.
func jsonName[E namedNumber](o *jsonObject, name string, v *uint8, parse func(string) (E, error)) {
	if !leavesOut(o, v) {
		jsonAnyName(o, name, v, parse)
	}
}

type namedNumber interface {
	~uint8
	fmt.Stringer
}

// jsonAnyName is jsonName for a field for which zero is a value.
func jsonAnyName[E namedNumber](o *jsonObject, name string, v *uint8, parse func(string) (E, error)) {
	jsonValue(o, name, v, func(b []byte, n uint8) ([]byte, error) {
		return appendJSON(b, nameOrNumber(E(n)))
	}, func(raw []byte) (uint8, error) {
		n, err := parse(nameIn(raw))
		return uint8(n), err
	})
}

// nameOrNumber returns the name of n, or n if it has none.
func nameOrNumber[E namedNumber](n E) any {
	if s := n.String(); s != strconv.Itoa(int(n)) {
		return s
	}
	return uint8(n)
}

// nameIn returns the text in raw, or raw itself if it is a number.
func nameIn(raw []byte) string {
	if s, err := readAs[string](raw); err == nil {
		return s
	}
	return string(raw)
}

// jsonFlags is about a list of the names of the bits in v, or their numbers where
// they have none.
func jsonFlags[T ~uint8 | ~uint32](o *jsonObject, name string, v *T, names []string) {
	if leavesOut(o, v) {
		return
	}
	jsonValue(o, name, v, func(b []byte, flags T) ([]byte, error) {
		return appendJSON(b, flagList(flags, names))
	}, func(raw []byte) (flags T, err error) {
		list, err := readAs[[]json.RawMessage](raw)
		if err != nil {
			return 0, errors.New("want a list of flags")
		}
		for _, raw := range list {
			flag, err := parseFlag[uint32](names, nameIn(raw))
			if err != nil || uint32(T(flag)) != flag {
				return 0, fmt.Errorf("unknown flag %s", raw)
			}
			flags |= T(flag)
		}
		return flags, nil
	})
}

// flagList returns the names of the bits in flags, or their numbers where they
// have none.
func flagList[T ~uint8 | ~uint32](flags T, names []string) []any {
	var list []any
	for bit := range 32 {
		switch flag := uint32(flags) & (1 << bit); {
		case flag == 0:
		case bit < len(names):
			list = append(list, names[bit])
		default:
			list = append(list, flag)
		}
	}
	return list
}

func jsonString[T ~string](o *jsonObject, name string, v *T) {
	if !leavesOut(o, v) {
		jsonValue(o, name, v, appendJSON, readAs[T])
	}
}

func jsonAddr(o *jsonObject, name string, v *netip.Addr) {
	if !leavesOut(o, v) {
		jsonValue(o, name, v, appendJSON, readAs[netip.Addr])
	}
}

// jsonTime is about a time, which is UTC in JSON and local outside, as the times
// that are decoded from the kernel's messages.
func jsonTime(o *jsonObject, name string, v *time.Time) {
	if !o.reading() && v.IsZero() {
		return
	}
	jsonValue(o, name, v, func(b []byte, t time.Time) ([]byte, error) {
		return appendJSON(b, t.UTC())
	}, func(raw []byte) (time.Time, error) {
		t, err := readAs[time.Time](raw)
		switch {
		case err != nil:
			return t, errors.New("want a time as in RFC 3339")
		case t.IsZero():
			return time.Time{}, nil
		}
		return t.Local(), nil
	})
}

// jsonHex is about bytes that are written as hexadecimal digits.
func jsonHex(o *jsonObject, name string, v *[]byte) {
	if !o.reading() && len(*v) == 0 {
		return
	}
	jsonValue(o, name, v, func(b []byte, v []byte) ([]byte, error) {
		b = append(b, '"')
		b = hex.AppendEncode(b, v)
		return append(b, '"'), nil
	}, func(raw []byte) ([]byte, error) {
		s, err := readAs[string](raw)
		if err != nil || s == "" {
			return nil, err
		}
		return hex.DecodeString(s)
	})
}

func appendJSON[T any](b []byte, v T) ([]byte, error) {
	text, err := json.Marshal(v)
	return append(b, text...), err
}

func readAs[T any](raw []byte) (v T, err error) {
	err = json.Unmarshal(raw, &v)
	return v, err
}
