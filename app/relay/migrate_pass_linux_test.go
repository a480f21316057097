package main

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/relay-jobs/relay/core/migration"
	"github.com/relay-jobs/relay/core/usecase"
)

// terminal opens a pseudoterminal of so many columns: what is written to tty is read from screen.
func terminal(t *testing.T, columns uint16) (screen, tty *os.File) {
	t.Helper()
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	t.Cleanup(func() { _ = screen.Close() })
	require.NoError(t, unix.IoctlSetPointerInt(int(screen.Fd()), unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(int(screen.Fd()), unix.TIOCGPTN)
	require.NoError(t, err)
	tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	t.Cleanup(func() { _ = tty.Close() })
	require.NoError(t, unix.IoctlSetWinsize(int(tty.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: columns}))
	return screen, tty
}

// TestProgressKeepsToItsLine: a bar that is wider than the terminal would leave a line behind at each redraw.
func TestProgressKeepsToItsLine(t *testing.T) {
	t.Parallel()
	for _, columns := range []uint16{80, 40} {
		screen, tty := terminal(t, columns)
		p := newProgress(tty)
		p.tell(told{
			fraction: 0.5, done: 1234567, waiting: true, pace: migration.Pace{Reason: "replicas lag"},
			what: "1234567 keys, would be 1234567 made, would be 1234567 repaired" + strings.Repeat(" and so on", 5),
		})
		reader := bufio.NewReader(screen)
		drawn, err := reader.ReadString('%') // the number before the bar
		require.NoError(t, err)
		require.Contains(t, drawn, "1234567 keys")
		rest := make(chan string, 1)
		go func() {
			var all strings.Builder
			_, _ = reader.WriteTo(&all) // ends with an error where the other side is closed
			rest <- all.String()
		}()
		p.end()
		require.NoError(t, tty.Close())
		for _, line := range strings.Split(drawn+<-rest, "\r") {
			require.LessOrEqual(t, len([]rune(line)), int(columns), "%q", line)
			require.NotContains(t, line, "\n")
		}
	}
}

// TestProgressTellsItsOwnRate: what an earlier run did is none of it, and a pass that stands still comes to no end.
func TestProgressTellsItsOwnRate(t *testing.T) {
	t.Parallel()
	p := &progress{}
	began := time.Now()
	p.tell(told{fraction: 0.5, done: 1_000_000, what: "resumed"})
	p.shown = began
	at := func(seconds int) time.Time { return began.Add(time.Duration(seconds) * time.Second) }
	require.Equal(t, "resumed, 100/s", p.line(told{fraction: 0.5, done: 1_000_500, what: "resumed"}, at(5)))
	require.Equal(t, "resumed, 200/s, about 40s left", p.line(told{fraction: 0.6, done: 1_002_500, what: "resumed"}, at(15)))
	held := told{fraction: 0.6, done: 1_002_500, what: "resumed", waiting: true, pace: migration.Pace{Reason: "paused"}}
	require.Equal(t, "resumed, 0/s, held: paused", p.line(held, at(20)))
	require.Equal(t, "waiting, 0/s", p.line(told{fraction: 1, done: 1_002_500, what: "waiting"}, at(25)), "how long it waits it says itself")
}

func TestVerifyTellsWhatItWaitsFor(t *testing.T) {
	t.Parallel()
	p := usecase.VerifyProgress{Part: usecase.VerifySuspects, Suspects: 3, Due: time.Date(2026, 11, 22, 1, 37, 13, 0, time.UTC)}
	require.Equal(t, "waiting until 01:37:13Z to ask about 3 suspects again", verifyPart(p))
	p.Suspects = 0
	require.Equal(t, "suspects", verifyPart(p))
	p.Part, p.Suspects = usecase.VerifyQueue, 3
	require.Equal(t, "queue", verifyPart(p))
}
