using System.Text.Json;
using Microsoft.AspNetCore.Hosting.Server;
using Microsoft.AspNetCore.Hosting.Server.Features;
using NopeGpt.Jobs;
using NopeGpt.Jobs.Training;
using NopeGpt.Web.Live;

namespace NopeGpt.Web.Hosting;

/// <summary>dashboard.json in the storage root: where trainers reach this dashboard's hub, and the key. It stands while the dashboard
/// listens, readable by its owner only.</summary>
internal sealed class DashboardFile(IServer server, Store store, HubKey key) : IHostedLifecycleService
{
    /// <summary>Where the dashboard listens, once it does: http://127.0.0.1:5080.</summary>
    public string Url { get; private set; } = "";

    public async Task StartedAsync(CancellationToken cancellationToken)
    {
        Url = server.Features.Get<IServerAddressesFeature>()?.Addresses.FirstOrDefault() ?? "";
        string aside = store.DashboardPath + "." + Environment.ProcessId + ".new";
        File.Delete(aside);
        FileStreamOptions options = new() { Mode = FileMode.CreateNew, Access = FileAccess.Write };
        if (!OperatingSystem.IsWindows()) options.UnixCreateMode = UnixFileMode.UserRead | UnixFileMode.UserWrite;
        await using (FileStream stream = new(aside, options))
        {
            // Not given up in the middle, which would leave half a file: it is a few bytes.
            await JsonSerializer.SerializeAsync(stream, DashboardAddress.Own(Url, key.Text), TrainingEvent.Json, CancellationToken.None);
        }
        File.Move(aside, store.DashboardPath, overwrite: true);
        Console.WriteLine($"NopeGpt's dashboard: {Url} (storage root {store.Root}). Ctrl+C ends it.");
    }

    /// <summary>After everything has stopped, so that trainers that save and end can still tell of it; another dashboard's file stays.</summary>
    public Task StoppedAsync(CancellationToken cancellationToken)
    {
        try
        {
            DashboardAddress? standing = JsonSerializer.Deserialize<DashboardAddress>(File.ReadAllText(store.DashboardPath), TrainingEvent.Json);
            if (key.Matches(standing?.Key)) File.Delete(store.DashboardPath);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or JsonException)
        {
            // It is gone or not ours.
        }
        return Task.CompletedTask;
    }

    public Task StartingAsync(CancellationToken cancellationToken) => Task.CompletedTask;
    public Task StartAsync(CancellationToken cancellationToken) => Task.CompletedTask;
    public Task StoppingAsync(CancellationToken cancellationToken) => Task.CompletedTask;
    public Task StopAsync(CancellationToken cancellationToken) => Task.CompletedTask;
}
