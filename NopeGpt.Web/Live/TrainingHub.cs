using Microsoft.AspNetCore.SignalR;
using NopeGpt.Jobs;

namespace NopeGpt.Web.Live;

/// <summary>/hubs/metrics: trainers publish (with the key of dashboard.json), browsers follow. Clients get `Events(runId, events)`.</summary>
internal sealed class TrainingHub(RunFeed feed, HubKey key) : Hub
{
    public const int MostAtOnce = 500;

    /// <summary>A trainer's events, in order of sequence. Gives the last sequence number known here; 0 while nobody looks at the run.</summary>
    public long Publish(string runId, TrainingEvent[] events) => key.IsIn(Context.GetHttpContext()?.Request)
        ? feed.Publish(runId, events)
        : throw new HubException("the key is not this dashboard's: read it again from dashboard.json in the storage root");

    /// <summary>Sends the run's new events to this client from now on, and gives those after the sequence number (a few hundred at most: a gap
    /// says that the series has to be fetched again). Drop what comes twice by its sequence number.</summary>
    public async Task<TrainingEvent[]> Follow(string runId, long afterSequence)
    {
        if (!Followed.Add(runId, feed)) throw new HubException($"a connection follows {FollowedRuns.Most} runs at most: unfollow some first");
        // The group first: an event between the two comes twice rather than never.
        await Groups.AddToGroupAsync(Context.ConnectionId, runId);
        return feed.Latest(runId, afterSequence);
    }

    /// <summary>The next events after a sequence number, oldest first, <see cref="MostAtOnce"/> at most; none where there are no more. A viewer that finds
    /// a gap (it came late, was slow, or lost its connection) asks until it is where `Events` goes on.</summary>
    public TrainingEvent[] Read(string runId, long afterSequence) => feed.Next(runId, afterSequence, MostAtOnce);

    public Task Unfollow(string runId)
    {
        Followed.Remove(runId);
        return Groups.RemoveFromGroupAsync(Context.ConnectionId, runId);
    }

    public override Task OnDisconnectedAsync(Exception? exception)
    {
        Followed.Dispose();
        return base.OnDisconnectedAsync(exception);
    }

    private FollowedRuns Followed => (FollowedRuns)(Context.Items[nameof(Followed)] ??= new FollowedRuns());
}
