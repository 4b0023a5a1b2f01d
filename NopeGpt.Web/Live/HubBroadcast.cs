using Microsoft.AspNetCore.SignalR;
using NopeGpt.Jobs;

namespace NopeGpt.Web.Live;

/// <summary>Passes the feed's new events to the browsers that follow the run.</summary>
internal sealed class HubBroadcast(RunFeed feed, IHubContext<TrainingHub> hub) : IHostedService
{
    public Task StartAsync(CancellationToken cancellationToken)
    {
        feed.Fresh += Send;
        return Task.CompletedTask;
    }

    public Task StopAsync(CancellationToken cancellationToken)
    {
        feed.Fresh -= Send;
        return Task.CompletedTask;
    }

    // Not awaited: SignalR drops a client that cannot keep up, and the others must not wait for it.
    private void Send(string runId, TrainingEvent[] events) => _ = hub.Clients.Group(runId).SendAsync("Events", runId, events);
}
