using Hangfire;
using Hangfire.Dashboard;
using Microsoft.AspNetCore.DataProtection.KeyManagement;
using Microsoft.AspNetCore.DataProtection.Repositories;
using Microsoft.Extensions.DependencyInjection.Extensions;
using MudBlazor.Services;
using NopeGpt.Jobs;
using NopeGpt.Jobs.Queue;
using NopeGpt.Web.Api;
using NopeGpt.Web.Chat;
using NopeGpt.Web.Components;
using NopeGpt.Web.Hosting;
using NopeGpt.Web.Live;
using NopeGpt.Web.Tokens;
using NopeGpt.Web.Uploads;

namespace NopeGpt.Web;

/// <summary>Puts the dashboard together: services, then the order in which a request meets them.</summary>
internal static class Dashboard
{
    private const int LargestBatchBytes = 4 << 20;

    // A viewer that has not taken one message after so long is let go of: what waits for it would grow. It comes back and reads what it missed.
    private static readonly TimeSpan SlowestViewer = TimeSpan.FromSeconds(5);

    // What a page may send at once: the chat's 20,000 characters are up to 60 KB, more than the 32 KB that SignalR allows by itself.
    private const int LargestPageMessageBytes = 256 << 10;

    /// <param name="before">Services to register first: those of the queue and the chat that stand already are kept.</param>
    /// <exception cref="UserException">A mistake in the options or settings.</exception>
    public static WebApplication Build(string[] args, Action<IServiceCollection>? before = null)
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
        before?.Invoke(builder.Services);
        AddServices(builder.Services, builder.Configuration);
        // Why a start failed is told by Program, in one sentence where it can be; the host and the server would add stack traces.
        IHostApplicationLifetime? lifetime = null;
        foreach (string category in new[] { "Microsoft.Extensions.Hosting.Internal.Host", "Microsoft.AspNetCore.Server.Kestrel", "Microsoft.AspNetCore.Hosting.Diagnostics" })
            builder.Logging.AddFilter(category, level => level >= LogLevel.Warning && lifetime is { ApplicationStarted.IsCancellationRequested: true });
        // What fails is told by whoever asked, without EF Core's stack traces.
        builder.Logging.AddFilter("Microsoft.EntityFrameworkCore", LogLevel.Critical);
        // It says that the keys are not encrypted; they lie where the models lie, for the owner only.
        builder.Logging.AddFilter("Microsoft.AspNetCore.DataProtection", LogLevel.Error);
        WebApplication app = builder.Build();
        lifetime = app.Lifetime;
        MapRequests(app);
        return app;
    }

    /// <summary>Starts the dashboard and waits for its end. One that is asked to end while it starts ends what had started, in order, and that is no error.</summary>
    public static async Task RunAsync(WebApplication app, CancellationToken end)
    {
        try
        {
            await app.StartAsync(end);
        }
        catch (OperationCanceledException) when (end.IsCancellationRequested || app.Lifetime.ApplicationStopping.IsCancellationRequested)
        {
            await app.StopAsync(CancellationToken.None);
            return;
        }
        await app.WaitForShutdownAsync(end);
    }

    private static void AddServices(IServiceCollection services, ConfigurationManager configuration)
    {
        services.AddRunQueue(configuration);
        services.AddSingleton<HubKey>().AddSingleton<RunFeed>().AddSingleton<DeviceBoard>().AddHostedService<HubBroadcast>();
        services.AddSingleton<RunNews>().AddHostedService(s => s.GetRequiredService<RunNews>());
        services.AddSingleton<FolderSizes>().AddSingleton<RunViews>();
        services.AddSingleton<DashboardFile>().AddHostedService(s => s.GetRequiredService<DashboardFile>());
        services.AddSingleton(UploadOptions.Read(configuration)).AddSingleton<UploadStore>().AddHostedService(s => s.GetRequiredService<UploadStore>());
        services.TryAddSingleton(ModelProcessOptions.Read(configuration));
        services.AddSingleton<ModelProcess>().AddSingleton<InferenceClient>().AddTransient<ChatSession>();
        services.AddSingleton<TokenizerShelf>();
        services.AddSignalR().AddHubOptions<TrainingHub>(o => o.MaximumReceiveMessageSize = LargestBatchBytes)
            .AddJsonProtocol(o => o.PayloadSerializerOptions = new(TrainingEvent.Json));
        services.AddRazorComponents().AddInteractiveServerComponents().AddHubOptions(o => o.MaximumReceiveMessageSize = LargestPageMessageBytes);
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
        app.UseExceptionHandler();
        app.UseLocalOnly();
        app.UseStatusCodePagesWithReExecute("/not-found", createScopeForStatusCodePages: true);
        app.UseAntiforgery();
        app.MapStaticAssets();
        app.MapHub<TrainingHub>("/hubs/metrics", o => o.TransportSendTimeout = SlowestViewer);
        app.MapHangfireDashboard("/hangfire", new DashboardOptions { DashboardTitle = "NopeGpt's jobs", Authorization = [new LocalRequestsOnlyAuthorizationFilter()] });
        RunsApi.Map(app);
        DatasetsApi.Map(app);
        UploadsApi.Map(app);
        ModelApi.Map(app);
        HealthApi.Map(app);
        DevicesApi.Map(app);
        app.MapRazorComponents<App>().AddInteractiveServerRenderMode();
    }
}
