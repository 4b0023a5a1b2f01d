using Hangfire;
using Microsoft.AspNetCore.DataProtection.KeyManagement;
using Microsoft.AspNetCore.DataProtection.Repositories;
using Microsoft.Extensions.Options;
using MudBlazor.Services;
using NopeGpt.Jobs;
using NopeGpt.Jobs.Queue;
using NopeGpt.Web.Chat;
using NopeGpt.Web.Components;
using NopeGpt.Web.Hosting;
using NopeGpt.Web.Live;

namespace NopeGpt.Web;

/// <summary>Puts the dashboard together: services, then the order in which a request meets them.</summary>
internal static class Dashboard
{
    private const int LargestBatchBytes = 4 << 20;

    /// <exception cref="UserException">A mistake in the options or settings.</exception>
    public static WebApplication Build(string[] args)
    {
        DashboardArguments.Check(args);
        // Everything of ours lies beside the program, wherever it is started from: settings, pages, scripts, the trainer.
        WebApplicationBuilder builder = WebApplication.CreateBuilder(new WebApplicationOptions
        {
            ApplicationName = typeof(Dashboard).Assembly.GetName().Name,
            ContentRootPath = AppContext.BaseDirectory,
        });
        builder.WebHost.UseStaticWebAssets();
        builder.Configuration.AddEnvironmentVariables("NOPEGPT_").AddCommandLine(args, new Dictionary<string, string> { ["--root"] = "Storage:Root" });
        DashboardArguments.CheckAddresses(builder.Configuration);
        AddServices(builder.Services, builder.Configuration);
        WebApplication app = builder.Build();
        // Failures of the start are told in one sentence by Program, not by the host with a stack trace.
        MapRequests(app);
        return app;
    }

    private static void AddServices(IServiceCollection services, ConfigurationManager configuration)
    {
        services.AddRunQueue(configuration);
        services.AddSingleton<HubKey>().AddSingleton<RunFeed>().AddHostedService<HubBroadcast>();
        services.AddSingleton<DashboardFile>().AddHostedService(s => s.GetRequiredService<DashboardFile>());
        services.AddSingleton(configuration.GetSection("Serve").Get<ModelProcessOptions>() ?? new ModelProcessOptions());
        services.AddSingleton<ModelProcess>().AddSingleton<InferenceClient>();
        services.AddSignalR().AddHubOptions<TrainingHub>(o => o.MaximumReceiveMessageSize = LargestBatchBytes)
            .AddJsonProtocol(o => o.PayloadSerializerOptions = new(TrainingEvent.Json));
        services.AddRazorComponents().AddInteractiveServerComponents();
        services.AddMudServices();
        services.AddProblemDetails();
        services.AddOptions<KeyManagementOptions>().Configure<Store, ILoggerFactory>((o, store, log) => o.XmlRepository = new FileSystemXmlRepository(KeysFolder(store), log));
    }

    /// <summary>The keys that sign form tokens: with the store rather than in a home folder that a service may lack; for the owner only.</summary>
    private static DirectoryInfo KeysFolder(Store store)
    {
        string folder = Path.Combine(store.CacheFolder, "keys");
        return OperatingSystem.IsWindows() ? Directory.CreateDirectory(folder) : Directory.CreateDirectory(folder, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
    }

    private static void MapRequests(WebApplication app)
    {
        app.UseLocalOnly();
        app.UseAntiforgery();
        app.MapStaticAssets();
        app.MapHub<TrainingHub>("/hubs/metrics");
        app.MapHangfireDashboard("/hangfire");
        app.MapRazorComponents<App>().AddInteractiveServerRenderMode();
    }
}
