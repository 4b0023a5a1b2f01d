namespace NopeGpt.Web.Live;

/// <summary>The runs that one connection follows. SignalR calls one method of a connection at a time.</summary>
internal sealed class FollowedRuns : IDisposable
{
    public const int Most = 256;

    private readonly Dictionary<string, IDisposable> _watches = new(StringComparer.Ordinal);

    /// <returns>False where the connection follows too many already.</returns>
    public bool Add(string runId, RunFeed feed)
    {
        if (_watches.ContainsKey(runId)) return true;
        if (_watches.Count >= Most) return false;
        // The events go to the group; this only keeps the feed looking at the run's file.
        _watches[runId] = feed.Subscribe(runId, () => { });
        return true;
    }

    public void Remove(string runId)
    {
        if (_watches.Remove(runId, out IDisposable? watch)) watch.Dispose();
    }

    public void Dispose()
    {
        foreach (IDisposable watch in _watches.Values) watch.Dispose();
        _watches.Clear();
    }
}
