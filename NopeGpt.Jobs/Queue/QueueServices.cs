using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.Configuration;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.DependencyInjection.Extensions;

namespace NopeGpt.Jobs.Queue;

/// <summary>The queue as services of a host.</summary>
public static class QueueServices
{
    /// <summary>Registers the store, the run table, the queue, its hosted services and Hangfire.</summary>
    public static IServiceCollection AddRunQueue(this IServiceCollection services, IConfiguration configuration)
    {
        services.TryAddSingleton(TimeProvider.System);
        services.TryAddSingleton(_ => Store.Open(configuration));
        services.AddDbContextFactory<RunTable>((provider, options) => options.UseSqlite(RunTable.ConnectionString(provider.GetRequiredService<Store>())));
        services.AddSingleton(provider => new RunLedger(provider.GetRequiredService<IDbContextFactory<RunTable>>()));
        services.AddSingleton(provider => new RunQueue(provider.GetRequiredService<RunLedger>(), provider.GetRequiredService<Store>(), provider.GetRequiredService<TimeProvider>()));
        return services;
    }
}
