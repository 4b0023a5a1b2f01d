using Bunit;
using Microsoft.Extensions.Configuration;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using MudBlazor.Services;
using NopeGpt.Jobs;
using NopeGpt.Jobs.Queue;
using NopeGpt.Tests;
using NopeGpt.Web.Chat;
using NopeGpt.Web.Live;
using NopeGpt.Web.Tests.Api;
using NopeGpt.Web.Tests.Chat;
using NopeGpt.Web.Tokens;
using NopeGpt.Web.Uploads;

namespace NopeGpt.Web.Tests.Pages;

/// <summary>Pages over the dashboard's own services and a storage root of their own. The queue is put in order as at a start of the dashboard,
/// but nothing is dispatched, so that a run stays as the test made it. The model process is the stub.</summary>
internal sealed class PageHost : IAsyncDisposable
{
    private readonly TemporaryFolder _folder = new();

    private PageHost(string root, Uri? tokenizers, Uri? hub, bool gpus)
    {
        Store = new Store(_folder[root]) { HubAddress = hub };
        if (tokenizers is not null) Store = new Store(_folder[root]) { TokenizerAddress = tokenizers, HubAddress = hub };
        Page.JSInterop.Mode = JSRuntimeMode.Loose;
        IConfiguration configuration = new ConfigurationBuilder().AddInMemoryCollection(gpus ? new Dictionary<string, string?> { ["Jobs:NvidiaSmi"] = FakeGpus.Program(_folder) } : []).Build();
        Page.Services.AddLogging();
        Page.Services.AddSingleton(Store).AddSingleton(ModelFixture.Stub);
        Page.Services.AddRunQueue(configuration);
        Page.Services.AddSingleton<RunNews>().AddSingleton<RunFeed>().AddSingleton<DeviceBoard>().AddSingleton(new ModelProcessOptions()).AddSingleton<ModelProcess>().AddSingleton<InferenceClient>().AddSingleton<TokenizerShelf>();
        Page.Services.AddSingleton(new UploadOptions { MaximumBytes = 1_000_000 }).AddSingleton<UploadStore>();
        Page.Services.AddMudServices();
    }

    public BunitContext Page { get; } = new();

    public Store Store { get; }

    public RunQueue Queue => Page.Services.GetRequiredService<RunQueue>();

    /// <param name="arrange">Makes the runs' folders, which the start takes into the queue's table.</param>
    /// <param name="address">Where published encodings are fetched from.</param>
    /// <param name="hub">The address of a Hub; without one the network is asked.</param>
    /// <param name="gpus">On a machine with <see cref="FakeGpus"/>.</param>
    public static async Task<PageHost> StartAsync(Action<Store>? arrange = null, string root = "root", Uri? address = null, Uri? hub = null, bool gpus = false)
    {
        PageHost host = new(root, address, hub, gpus);
        arrange?.Invoke(host.Store);
        await host.QueueHost.StartingAsync(CancellationToken.None);
        return host;
    }

    public string Address => Page.Services.GetRequiredService<Microsoft.AspNetCore.Components.NavigationManager>().Uri;

    public void Open(string address) => Page.Services.GetRequiredService<Microsoft.AspNetCore.Components.NavigationManager>().NavigateTo(address);

    public async ValueTask DisposeAsync()
    {
        await Page.DisposeAsync();
        _folder.Dispose();
    }

    // The service that puts the run table in order; those that start trainers are left alone.
    private IHostedLifecycleService QueueHost =>
        Page.Services.GetServices<IHostedService>().OfType<IHostedLifecycleService>().Single(s => s.GetType().Assembly == typeof(RunQueue).Assembly);
}
