using System.Diagnostics.CodeAnalysis;
using NopeGpt.Model;

namespace NopeGpt.Jobs.Queue;

// What people say of the order, of single runs and of the whole queue.
public sealed partial class RunQueue
{
    /// <summary>Largest priority, and with a minus the smallest.</summary>
    public const int HighestPriority = 100;

    private const int MostTags = 20, LongestTag = 40, LongestNotes = 10_000;

    /// <summary>The whole queue's settings changed.</summary>
    public event Action? SettingsChanged;

    /// <summary>What is set for the whole queue.</summary>
    public QueueSettings Settings => settings.Read();

    /// <summary>Pauses the queue or lets it go on, and says what follows a failure; null leaves as it is.</summary>
    /// <exception cref="UserException">The store cannot be written.</exception>
    public QueueSettings Change(bool? paused = null, bool? stopAtFailure = null)
    {
        QueueSettings now;
        try { now = settings.Change(before => before with { Paused = paused ?? before.Paused, Reason = paused is null ? before.Reason : null, StopAtFailure = stopAtFailure ?? before.StopAtFailure }); }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new UserException($"the queue's settings cannot be written in {store.Root} ({e.Message.TrimEnd('.')}): free some space or mend the folder's rights", ExitCode.DiskFull);
        }
        SettingsChanged?.Invoke();
        return now;
    }

    /// <summary>Moves a waiting run among those of its priority.</summary>
    /// <exception cref="UserException">It does not wait in the queue.</exception>
    public async Task MoveAsync(string id, QueueMove move, CancellationToken cancel = default)
    {
        if (await ledger.ReorderAsync(id, move, cancel).ConfigureAwait(false)) return;
        RunRow row = await FoundAsync(id, cancel).ConfigureAwait(false);
        throw new UserException($"run {row.Title} {Words.Of(row.State)}: only a run that waits in the queue can be moved");
    }

    /// <summary>Lets a run start next: to the front of the queue, whatever holds it back by a person's wish. One that has ended unfinished is queued again.</summary>
    /// <exception cref="UserException">It cannot start; the message says why.</exception>
    public async Task StartAsync(string id, CancellationToken cancel = default)
    {
        RunRow row = await FoundAsync(id, cancel).ConfigureAwait(false);
        if (row.State != RunState.Queued) await ResumeAsync(id, cancel).ConfigureAwait(false);
        int highest = Math.Max(row.Priority, (await ListAsync(RunState.Queued, cancel: cancel).ConfigureAwait(false)).Max(r => (int?)r.Priority) ?? 0);
        await ledger.ChangeAsync(id, r => r
            .SetProperty(x => x.Priority, highest)
            .SetProperty(x => x.Held, false)
            .SetProperty(x => x.NotBefore, (DateTimeOffset?)null)
            .SetProperty(x => x.RetryAt, (DateTimeOffset?)null), cancel).ConfigureAwait(false);
        await ledger.ReorderAsync(id, QueueMove.Top, cancel).ConfigureAwait(false);
    }

    /// <summary>Changes what people say of a run.</summary>
    /// <exception cref="ProblemsException">All that is wrong with the change.</exception>
    /// <exception cref="UserException">There is no such run.</exception>
    public async Task ChangeAsync(string id, RunChange change, CancellationToken cancel = default)
    {
        ArgumentNullException.ThrowIfNull(change);
        Check(change);
        IReadOnlyList<string>? tags = Distinct(change.Tags);
        if (change == new RunChange())
        {
            await FoundAsync(id, cancel).ConfigureAwait(false);
            return;
        }
        bool known = await ledger.ChangeAsync(id, row =>
        {
            if (change.Priority is { } priority) row.SetProperty(r => r.Priority, priority);
            if (change.Held is { } held) row.SetProperty(r => r.Held, held);
            if (change.NotBefore is { } earliest) row.SetProperty(r => r.NotBefore, earliest);
            else if (change.AtAnyTime) row.SetProperty(r => r.NotBefore, (DateTimeOffset?)null);
            if (tags is not null) row.SetProperty(r => r.Tags, string.Join(',', tags));
            if (change.Notes is { } notes) row.SetProperty(r => r.Notes, notes);
        }, cancel).ConfigureAwait(false);
        if (!known) throw NoSuchRun(id);
    }

    /// <exception cref="ProblemsException">All that is wrong with the change, for whatever run.</exception>
    internal static void Check(RunChange change)
    {
        List<Problem> problems = [.. Problems(change, Distinct(change.Tags))];
        if (problems.Count > 0) throw new ProblemsException(problems);
    }

    [return: NotNullIfNotNull(nameof(tags))]
    private static IReadOnlyList<string>? Distinct(IReadOnlyList<string>? tags) => tags is null ? null : [.. tags.Select(t => t.Trim()).Where(t => t.Length > 0).Distinct(StringComparer.OrdinalIgnoreCase)];

    private static IEnumerable<Problem> Problems(RunChange change, IReadOnlyList<string>? tags)
    {
        if (change.Priority is < -HighestPriority or > HighestPriority)
            yield return new Problem("priority", $"{change.Priority}", $"must be from -{HighestPriority} to {HighestPriority}; greater goes first");
        if (tags?.Count > MostTags) yield return new Problem("tags", $"{tags.Count} tags", $"at most {MostTags} are kept");
        foreach (string tag in tags?.Where(t => t.Length > LongestTag || t.Contains(',', StringComparison.Ordinal) || t.Any(char.IsControl)) ?? [])
            yield return new Problem("tags", tag, $"a tag has at most {LongestTag} characters and no comma or control character");
        if (change.Notes?.Contains('\0', StringComparison.Ordinal) == true) yield return new Problem("notes", "a text with the character NUL", "leave that character out");
        if (change.Notes?.Length > LongestNotes) yield return new Problem("notes", $"{change.Notes.Length} characters", $"at most {LongestNotes} are kept");
    }
}

/// <summary>What is to change of what people say of a run; null leaves as it is.</summary>
/// <param name="Priority">Greater goes first, whatever the place.</param>
/// <param name="Held">It keeps its place and does not start.</param>
/// <param name="NotBefore">It does not start before.</param>
/// <param name="AtAnyTime">Takes <see cref="NotBefore"/> back.</param>
/// <param name="Tags">Short words.</param>
/// <param name="Notes">Free text.</param>
public sealed record RunChange(int? Priority = null, bool? Held = null, DateTimeOffset? NotBefore = null, bool AtAnyTime = false, IReadOnlyList<string>? Tags = null, string? Notes = null);
