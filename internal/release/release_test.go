package release

import "testing"

func TestParse(t *testing.T) {
	for in, want := range map[string]Release{
		"6.1.0-21-cloud-amd64\n": {6, 1},
		"6.18.44":                {6, 18},
		"5.10-rc3":               {5, 10},
		"4.19+":                  {4, 19},
	} {
		if got, err := Parse(in); err != nil || got != want {
			t.Errorf("Parse(%q) = %v, %v, want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"", "Linux", "6", "6."} {
		if got, err := Parse(in); err == nil {
			t.Errorf("Parse(%q) = %v, want an error", in, got)
		}
	}
}

func TestLess(t *testing.T) {
	ordered := []Release{{4, 1}, {4, 19}, {5, 3}, {5, 10}, {6, 1}}
	for i, a := range ordered {
		for j, b := range ordered {
			if a.Less(b) != (i < j) {
				t.Errorf("%v.Less(%v) = %v", a, b, a.Less(b))
			}
		}
	}
}
