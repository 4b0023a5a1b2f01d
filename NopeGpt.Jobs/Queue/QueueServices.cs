using Hangfire;
using Microsoft.Extensions.Configuration;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.DependencyInjection.Extensions;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using NopeGpt.Jobs.Queue.Hosts;

namespace NopeGpt.Jobs.Queue;

/// <summary>The queue as services of a host.</summary>
public static class QueueServices
{
    private static readonly TimeSpan ShortestShutdown = TimeSpan.FromSeconds(30);

    /// <summary>Registers the store, the run table, the queue, its hosted services and Hangfire. A <see cref="Store"/>, <see cref="TrainerProgram"/>
    /// or <see cref="TimeProvider"/> that is registered before is kept.</summary>
    /// <param name="worker">The host has no dashboard, and so may be one of several on a store.</param>
    /// <exception cref="UserException">A setting under Jobs is not known.</exception>
    public static IServiceCollection AddRunQueue(this IServiceCollection services, IConfiguration configuration, bool worker = false)
    {
        QueueOptions options = QueueOptions.Read(configuration) with { IsWorker = worker };
        int sweepCap = SweepPlan.Cap(configuration);
        services.AddSingleton(options).AddSingleton(DeviceOptions.Read(configuration));
        services.TryAddSingleton(TimeProvider.System);
        services.TryAddSingleton(_ => Store.Open(configuration));
        services.TryAddSingleton(_ => TrainerProgram.Beside());
        services.AddDbContextFactory<RunTable>((provider, table) => RunTable.Configure(table, options, provider.GetRequiredService<Store>()));
        services.AddSingleton<ThisHost>();
        services.AddSingleton<SharedTable>();
        services.AddSingleton<RunLedger>();
        services.AddSingleton<Predecessors>();
        services.AddSingleton<CardKeeper>();
        services.AddSingleton<QueueSwitch>();
        services.AddSingleton<RunTrash>();
        services.AddSingleton(provider => new RunQueue(provider.GetRequiredService<RunLedger>(), provider.GetRequiredService<Store>(), provider.GetRequiredService<QueueSwitch>(),
            provider.GetRequiredService<RunTrash>(), provider.GetRequiredService<TimeProvider>()) { SweepCap = sweepCap });
        services.TryAddSingleton(NoticeOptions.Read(configuration));
        services.AddSingleton<NoticeOutbox>().AddSingleton<RunNotices>().AddHostedService<WebhookSender>();
        services.AddSingleton<RunEnding>();
        AddDevices(services);
        services.AddSingleton<Supervisor>();
        services.AddSingleton<RunSchema>();
        services.AddSingleton<Reconciler>();
        services.AddTransient(provider => new TrainingJob(provider.GetRequiredService<Supervisor>()));
        services.AddHostedService<QueueHost>();
        services.AddHostedService(provider => provider.GetRequiredService<SharedTable>());
        services.AddHostedService(provider => provider.GetRequiredService<CardKeeper>());
        HangfireSetup.AddTo(services);
        services.AddHostedService<Dispatcher>();
        services.AddHostedService<FolderWatch>();
        services.AddHostedService<HostWatch>();
        services.AddHostedService<TableWatch>();
        services.AddHostedService(provider => provider.GetRequiredService<RunTrash>());
        // Trainers save and end first; then Hangfire's servers have what they need.
        services.Configure<HostOptions>(host => host.ShutdownTimeout = options.StopGrace + ShortestShutdown);
        return services;
    }

    private static void AddDevices(IServiceCollection services)
    {
        services.TryAddSingleton(_ => new HostFiles());
        services.AddSingleton(provider => new GpuProbe(provider.GetRequiredService<DeviceOptions>(), provider.GetRequiredService<HostFiles>(), Environment.GetEnvironmentVariable("CUDA_VISIBLE_DEVICES"),
            provider.GetRequiredService<TimeProvider>(), provider.GetRequiredService<ILogger<GpuProbe>>()));
        services.AddSingleton(provider => new DevicePool(provider.GetRequiredService<GpuProbe>(), provider.GetRequiredService<HostFiles>(), provider.GetRequiredService<DeviceOptions>(), provider.GetRequiredService<ThisHost>(),
            provider.GetRequiredService<Store>(), provider.GetRequiredService<TimeProvider>()));
    }
}
