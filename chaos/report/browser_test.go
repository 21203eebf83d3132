// SPDX-License-Identifier: Apache-2.0

package report

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// browser opens a headless Chromium.
func browser(t *testing.T) context.Context {
	t.Helper()
	path := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if found, err := exec.LookPath(name); err == nil {
			path = found
			break
		}
	}
	if path == "" {
		t.Fatal("the report is tested in a browser, and there is no Chromium: run make unit, or apt-get install chromium")
	}
	// As root Chromium runs without its sandbox or not at all.
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	ctx, stop := chromedp.NewExecAllocator(ctx, options...)
	t.Cleanup(stop)
	ctx, end := chromedp.NewContext(ctx)
	t.Cleanup(end)
	return ctx
}

// visit opens a page and returns what the browser complained of: requests of anything but the page, errors of scripts,
// violations of the page's own policy.
func visit(ctx context.Context, t *testing.T, path string) (complaints func() []string) {
	t.Helper()
	var mu sync.Mutex
	var heard []string
	url := "file://" + path
	err := chromedp.Listen(ctx, func(event any) {
		mu.Lock()
		defer mu.Unlock()
		switch e := event.(type) {
		case *network.EventRequestWillBeSent:
			if e.Request.URL != url {
				heard = append(heard, "request of "+e.Request.URL)
			}
		case *runtime.EventExceptionThrown:
			heard = append(heard, "exception: "+e.ExceptionDetails.Exception.Description)
		case *log.EventEntryAdded:
			heard = append(heard, e.Entry.Text)
		}
	})
	if err == nil {
		err = chromedp.Do(ctx, chromedp.Navigate(url))
	}
	if err != nil {
		t.Fatal(err)
	}
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		return heard
	}
}

// evaluate returns what an expression is in the page.
func evaluate[T any](ctx context.Context, t *testing.T, expression string) T {
	t.Helper()
	value, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		t.Fatalf("%s: %v", expression, err)
	}
	return value
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestPageInBrowser looks at the page on small and large screens, in light and in dark. With EVENKEEL_SCREENSHOTS=DIR it
// leaves pictures there.
func TestPageInBrowser(t *testing.T) {
	ctx := browser(t)
	complaints := visit(ctx, t, samplePage(t))
	evaluate[int](ctx, t, `document.querySelectorAll("details.spec").forEach(d => d.open = true), 1`)
	backgrounds := map[string]string{}
	for _, screen := range []struct {
		name          string
		width, height int64
		scheme        string
	}{
		{"small-light", 360, 740, "light"}, {"small-dark", 360, 740, "dark"},
		{"large-light", 1440, 900, "light"}, {"large-dark", 1440, 900, "dark"},
	} {
		must(t, chromedp.Do(ctx, chromedp.EmulateViewport(screen.width, screen.height)))
		_, err := chromedp.Call(ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: screen.scheme}}})
		must(t, err)
		overflow := evaluate[int](ctx, t, `document.documentElement.scrollWidth - document.documentElement.clientWidth`)
		if overflow > 0 {
			t.Errorf("%s: the page is %d pixels wider than the screen", screen.name, overflow)
		}
		text := evaluate[string](ctx, t, `document.body.innerText`)
		for _, want := range []string{"may not be rolled out", "evenkeel", "ambient", "some that <b>stall</b>", "9 broken",
			"map 17 services", "kernel 6.18.5", "1000 intact"} {
			if !strings.Contains(text, want) {
				t.Errorf("%s: %q is not to be seen", screen.name, want)
			}
		}
		backgrounds[screen.scheme] = evaluate[string](ctx, t, `getComputedStyle(document.body).backgroundColor`)
		if dir := os.Getenv("EVENKEEL_SCREENSHOTS"); dir != "" {
			shot, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
			must(t, err)
			must(t, os.WriteFile(filepath.Join(dir, screen.name+".png"), shot, 0o644))
		}
	}
	if backgrounds["light"] == backgrounds["dark"] {
		t.Errorf("light and dark are both %s", backgrounds["light"])
	}
	if said := complaints(); len(said) > 0 {
		t.Errorf("the browser says: %s", strings.Join(said, "\n"))
	}
}

func TestFilterInBrowser(t *testing.T) {
	ctx := browser(t)
	visit(ctx, t, samplePage(t))
	visible := func(want int, what string) {
		t.Helper()
		got := evaluate[int](ctx, t, `[...document.querySelectorAll("details.spec")].filter(d => d.offsetHeight > 0).length`)
		if got != want {
			t.Errorf("%s: %d are to be seen, not %d", what, got, want)
		}
	}
	visible(5, "all")
	must(t, chromedp.Do(ctx, chromedp.Click(`button[data-state="failed"]`)))
	visible(1, "failed")
	must(t, chromedp.Do(ctx, chromedp.Click(`button[data-state="control"]`)))
	visible(1, "controls")
	must(t, chromedp.Do(ctx, chromedp.Click(`button[data-state=""]`), chromedp.SendKeys(`input[type="search"]`, "THOUSAND")))
	visible(1, "by name")
	// What broke is painted in a colour of its own: in ambient's run, and in the one that failed.
	painted := evaluate[int](ctx, t, `new Set([...document.querySelectorAll("path.lost")].map(p => p.closest(".plot"))).size`)
	colours := evaluate[int](ctx, t, `new Set([...document.querySelectorAll("path")].map(p => getComputedStyle(p).fill)).size`)
	// Two specs with the same faults on two data planes are beside each other as well.
	beside := evaluate[string](ctx, t, `[...document.querySelectorAll(".pair .plot")].map(p => p.dataset.dataplane).join()`)
	if beside != "evenkeel,ambient" {
		t.Errorf("beside each other: %q", beside)
	}
	if painted != 4 || colours < 5 {
		t.Errorf("%d plots show what broke, in %d colours", painted, colours)
	}
}

// TestComplaints is the control: a page that wants something from elsewhere is caught.
func TestComplaints(t *testing.T) {
	page := t.TempDir() + "/page.html"
	must(t, os.WriteFile(page, []byte(`<script src="elsewhere.js"></script><script>nothing()</script>`), 0o644))
	ctx := browser(t)
	said := strings.Join(visit(ctx, t, page)(), "\n")
	if !strings.Contains(said, "elsewhere.js") || !strings.Contains(said, "nothing is not defined") {
		t.Errorf("heard: %s", said)
	}
}
