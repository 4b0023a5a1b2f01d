using Microsoft.AspNetCore.SignalR;
using NopeGpt.Jobs;

namespace NopeGpt.Web.Live;

/// <summary>/hubs/metrics: trainers publish (with the key of dashboard.json), browsers follow. Clients get `Events(runId, events)`.</summary>
internal sealed class TrainingHub(RunFeed feed, HubKey key) : Hub
{
    private const int MostFollowed = 256;

    /// <summary>A trainer's events, in order of sequence. Gives the last sequence number known here; 0 while nobody looks at the run.</summary>
    public long Publish(string runId, TrainingEvent[] events)
    {
        HttpRequest? request = Context.GetHttpContext()?.Request;
        string? header = request?.Headers.Authorization.ToString();
        string? token = header is not null && header.StartsWith("Bearer ", StringComparison.Ordinal) ? header["Bearer ".Length..] : request?.Query["access_token"].ToString();
        if (!key.Matches(token)) throw new HubException("the key is not this dashboard's: read it again from dashboard.json in the storage root");
        return feed.Publish(runId, events);
    }

    /// <summary>Sends the run's new events to this client from now on, and gives those after the sequence number (the last 512 at most: a gap
    /// says that the series has to be fetched again). Drop what comes twice by its sequence number.</summary>
    public async Task<TrainingEvent[]> Follow(string runId, long afterSequence)
    {
        if (Followed.Count >= MostFollowed) throw new HubException($"a connection follows {MostFollowed} runs at most: unfollow some first");
        // The group first: an event between the two arrives twice rather than never.
        await Groups.AddToGroupAsync(Context.ConnectionId, runId);
        if (!Followed.ContainsKey(runId)) Followed[runId] = feed.Subscribe(runId, () => { });
        return feed.Latest(runId, afterSequence);
    }

    public Task Unfollow(string runId)
    {
        if (Followed.Remove(runId, out IDisposable? watch)) watch.Dispose();
        return Groups.RemoveFromGroupAsync(Context.ConnectionId, runId);
    }

    public override Task OnDisconnectedAsync(Exception? exception)
    {
        foreach (IDisposable watch in Followed.Values) watch.Dispose();
        return base.OnDisconnectedAsync(exception);
    }

    private Dictionary<string, IDisposable> Followed
    {
        get
        {
            if (Context.Items["followed"] is Dictionary<string, IDisposable> known) return known;
            Dictionary<string, IDisposable> made = [];
            Context.Items["followed"] = made;
            return made;
        }
    }
}
