package main

import (
	"context"

	placementoptions "github.com/dapr/dapr/cmd/placement/options"
	scheduleroptions "github.com/dapr/dapr/cmd/scheduler/options"
	"github.com/dapr/dapr/pkg/healthz"
	"github.com/dapr/dapr/pkg/modes"
	"github.com/dapr/dapr/pkg/placement"
	placementmonitoring "github.com/dapr/dapr/pkg/placement/monitoring"
	schedulermonitoring "github.com/dapr/dapr/pkg/scheduler/monitoring"
	"github.com/dapr/dapr/pkg/scheduler/server"
	"github.com/dapr/dapr/pkg/security"
	"github.com/dapr/kit/logger"
)

// The two programs below do what Dapr's cmd/placement/app and cmd/scheduler/app do, without the HTTP server that reports
// their health: it listens on every interface, whatever its flags say. Their gRPC ports open when they can serve.

// runPlacement runs the placement service, which tells the sidecars which of them has which workflow.
func runPlacement(ctx context.Context, flags []string) error {
	opts, err := placementoptions.New(flags)
	if err != nil {
		return err
	}
	if err := logger.ApplyOptionsToLoggers(&opts.Logger); err != nil {
		return err
	}
	if err := placementmonitoring.InitMetrics(); err != nil {
		return err
	}
	health := healthz.New()
	return runSecured(ctx, security.Options{
		SentryAddress:           opts.SentryAddress,
		ControlPlaneTrustDomain: opts.TrustDomain,
		ControlPlaneNamespace:   security.CurrentNamespace(),
		TrustAnchorsFile:        &opts.TrustAnchorsFile,
		AppID:                   "dapr-placement",
		MTLSEnabled:             opts.TLSEnabled,
		Mode:                    modes.DaprMode(opts.Mode),
		Healthz:                 health,
	}, func(ctx context.Context, handler security.Handler) error {
		service, err := placement.New(placement.Options{
			NodeID:                    opts.RaftID,
			Port:                      opts.PlacementPort,
			ListenAddress:             opts.PlacementListenAddress,
			Security:                  handler,
			Healthz:                   health,
			KeepAliveTime:             opts.KeepAliveTime,
			KeepAliveTimeout:          opts.KeepAliveTimeout,
			ReplicationFactor:         int64(opts.ReplicationFactor),
			Peers:                     opts.RaftPeers,
			DisseminateTimeout:        opts.DisseminateTimeout,
			DisseminateCoalesceWindow: opts.DisseminateCoalesceWindow,
		})
		if err != nil {
			return err
		}
		return service.Run(ctx)
	})
}

// runScheduler runs the scheduler service, which keeps the reminders of workflows in an etcd of its own.
func runScheduler(ctx context.Context, flags []string) error {
	opts, err := scheduleroptions.New(flags)
	if err != nil {
		return err
	}
	if err := logger.ApplyOptionsToLoggers(&opts.Logger); err != nil {
		return err
	}
	if err := schedulermonitoring.InitMetrics(); err != nil {
		return err
	}
	health := healthz.New()
	return runSecured(ctx, security.Options{
		SentryAddress:           opts.SentryAddress,
		ControlPlaneTrustDomain: opts.TrustDomain,
		ControlPlaneNamespace:   security.CurrentNamespace(),
		TrustAnchorsFile:        opts.TrustAnchorsFile,
		AppID:                   "dapr-scheduler",
		MTLSEnabled:             opts.TLSEnabled,
		Mode:                    modes.DaprMode(opts.Mode),
		Healthz:                 health,
		WriteIdentityToFile:     &opts.IdentityDirectoryWrite,
	}, func(ctx context.Context, handler security.Handler) error {
		// A server ends without an error when it has to begin again.
		for ctx.Err() == nil {
			service, err := server.New(ctx, server.Options{
				Port:                           opts.Port,
				ListenAddress:                  opts.ListenAddress,
				OverrideBroadcastHostPort:      opts.OverrideBroadcastHostPort,
				Mode:                           modes.DaprMode(opts.Mode),
				Security:                       handler,
				Healthz:                        health,
				EtcdEmbed:                      opts.EtcdEmbed,
				EtcdDataDir:                    opts.EtcdDataDir,
				EtcdName:                       opts.ID,
				EtcdInitialCluster:             opts.EtcdInitialCluster,
				EtcdClientPort:                 opts.EtcdClientPort,
				EtcdClientListenAddress:        opts.EtcdClientListenAddress,
				EtcdSpaceQuota:                 opts.EtcdSpaceQuota,
				EtcdCompactionMode:             opts.EtcdCompactionMode,
				EtcdCompactionRetention:        opts.EtcdCompactionRetention,
				EtcdSnapshotCount:              opts.EtcdSnapshotCount,
				EtcdMaxSnapshots:               opts.EtcdMaxSnapshots,
				EtcdMaxWALs:                    opts.EtcdMaxWALs,
				EtcdBackendBatchLimit:          opts.EtcdBackendBatchLimit,
				EtcdBackendBatchInterval:       opts.EtcdBackendBatchInterval,
				EtcdMaxTxnOps:                  opts.EtcdMaxTxnOps,
				EtcdDefragThresholdMB:          opts.EtcdDefragThresholdMB,
				EtcdInitialElectionTickAdvance: opts.EtcdInitialElectionTickAdvance,
				EtcdMetrics:                    opts.EtcdMetrics,
				Workers:                        opts.Workers,
			})
			if err != nil {
				return err
			}
			if err := service.Run(ctx); err != nil {
				return err
			}
		}
		return ctx.Err()
	})
}
