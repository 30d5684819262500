// Command dapr is the part of Dapr that the tests need, in one binary: the placement service, the scheduler service and a
// sidecar with two state stores (SQLite and Redis).
//
// It is put together from Dapr's own packages, because the modules of the many other components that Dapr's daprd
// contains take longer to download and build than all the tests take. The first argument says what to run; the others
// are the flags of Dapr's program of that name:
//
//	dapr placement --port 12001 ...
//	dapr scheduler --port 12002 ...
//	dapr daprd --app-id app ...
package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/dapr/dapr/pkg/security"
	"github.com/dapr/kit/concurrency"
	"github.com/dapr/kit/logger"
	"github.com/dapr/kit/signals"
)

var log = logger.NewLogger("dapr.tests")

func main() {
	programs := map[string]func(context.Context, []string) error{
		"daprd":     runSidecar,
		"placement": runPlacement,
		"scheduler": runScheduler,
	}
	name := ""
	if len(os.Args) > 1 {
		name = os.Args[1]
	}
	run, ok := programs[name]
	if !ok {
		fmt.Fprintf(os.Stderr, "usage: %s daprd|placement|scheduler [flags]; %q is none of the three\n", os.Args[0], name)
		os.Exit(2)
	}
	if err := run(signals.Context(), os.Args[2:]); err != nil && !errors.Is(err, context.Canceled) {
		log.Fatalf("Fatal error of %s: %s", name, err)
	}
	log.Infof("%s shut down gracefully", name)
}

// runSecured runs a function with a provider of security beside it, which every program of Dapr's needs, also without mTLS.
func runSecured(ctx context.Context, opts security.Options, run func(context.Context, security.Handler) error) error {
	provider, err := security.New(ctx, opts)
	if err != nil {
		return err
	}
	return concurrency.NewRunnerManager(
		provider.Run,
		func(ctx context.Context) error {
			handler, err := provider.Handler(ctx)
			if err != nil {
				return err
			}
			return run(ctx, handler)
		},
	).Run(ctx)
}
