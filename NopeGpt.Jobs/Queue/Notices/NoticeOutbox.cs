using System.Text.Json;
using Microsoft.Extensions.Logging;

namespace NopeGpt.Jobs.Queue;

/// <summary>What is yet to be sent: in the storage root, notices/ID.KEY.json for each notice and receiver, so that it outlasts the dashboard. A notice is
/// written before the change that it tells of, as a draft, and stands under its name after it.</summary>
internal sealed class NoticeOutbox(Store store, ILogger<NoticeOutbox> log)
{
    /// <summary>For each receiver; the oldest go first.</summary>
    public const int Most = 200;

    private const string Ending = ".json", DraftEnding = ".draft";
    private static readonly TimeSpan OldDraft = TimeSpan.FromHours(1);

    /// <summary>Something is to be sent.</summary>
    public event Action? Added;

    public string Folder => Path.Combine(store.Root, "notices");

    /// <summary>Writes a notice that is not to be sent yet. What cannot be written is said, and lost: no run waits for it.</summary>
    public void Draft(RunNotice notice, IEnumerable<Webhook> webhooks)
    {
        foreach (Webhook webhook in webhooks)
        {
            Guarded(notice.Id, () =>
            {
                Directory.CreateDirectory(Folder);
                MakeRoom(webhook);
                Write(DraftPath(notice.Id, webhook), new PendingNotice(notice.Id, notice.Run.Id, notice.Run.State, 0, notice.ToJson()));
            });
        }
    }

    /// <summary>What it tells of has happened.</summary>
    public void Release(string id, IEnumerable<Webhook> webhooks)
    {
        foreach (Webhook webhook in webhooks)
        {
            Guarded(id, () =>
            {
                File.Move(DraftPath(id, webhook), PathOf(id, webhook), overwrite: true);
                // Of a process that was killed before it could release it.
                foreach (string left in Directory.GetFiles(Folder, $"{id}.{webhook.Key}{Ending}.*{DraftEnding}")) File.Delete(left);
            });
        }
        Added?.Invoke();
    }

    /// <summary>What it tells of has not happened.</summary>
    public void Withdraw(string id, IEnumerable<Webhook> webhooks)
    {
        foreach (Webhook webhook in webhooks) Guarded(id, () => File.Delete(DraftPath(id, webhook)));
    }

    /// <summary>What is to be sent to a receiver, oldest first.</summary>
    public IReadOnlyList<string> Pending(Webhook webhook) =>
        Directory.Exists(Folder) ? [.. new DirectoryInfo(Folder).EnumerateFiles($"*.{webhook.Key}{Ending}").OrderBy(f => f.LastWriteTimeUtc).ThenBy(f => f.Name, StringComparer.Ordinal).Select(f => f.FullName)] : [];

    /// <summary>Null for a file that is damaged or gone; a damaged one is deleted.</summary>
    public PendingNotice? Read(string path)
    {
        try { return JsonSerializer.Deserialize<PendingNotice>(File.ReadAllText(path), TrainingEvent.Json) ?? throw new JsonException("it is empty"); }
        catch (FileNotFoundException) { return null; }
        catch (JsonException e)
        {
            log.LogWarning("The notice {Name} is damaged and will not be sent: {Message}", Path.GetFileName(path), e.Message);
            File.Delete(path);
            return null;
        }
    }

    /// <summary>Keeps the number of tries, and the notice's age.</summary>
    public static void Update(string path, PendingNotice notice)
    {
        DateTime written = File.GetLastWriteTimeUtc(path);
        Write(path, notice);
        File.SetLastWriteTimeUtc(path, written);
    }

    /// <summary>What a killed process left: drafts of what has happened are released, and what is for receivers that are not named any more goes.</summary>
    /// <param name="happened">Whether the run is in the state that the notice tells of.</param>
    public async Task SettleAsync(IEnumerable<Webhook> webhooks, Func<PendingNotice, Task<bool>> happened)
    {
        if (!Directory.Exists(Folder)) return;
        HashSet<string> keys = [.. webhooks.Select(w => w.Key)];
        foreach (string path in Directory.GetFiles(Folder))
        {
            string name = Path.GetFileName(path);
            bool draft = name.EndsWith(DraftEnding, StringComparison.Ordinal);
            if (!draft && !name.EndsWith(Ending, StringComparison.Ordinal))
            {
                // Half written by a process that was killed.
                if (name.EndsWith(".new", StringComparison.Ordinal) && DateTime.UtcNow - File.GetLastWriteTimeUtc(path) > OldDraft) File.Delete(path);
                continue;
            }
            string final = draft ? name[..(name.LastIndexOf(Ending + ".", StringComparison.Ordinal) + Ending.Length)] : name;
            if (!keys.Contains(Path.GetFileNameWithoutExtension(final).Split('.')[^1])) File.Delete(path);
            else if (draft && Read(path) is { } left)
            {
                if (await happened(left).ConfigureAwait(false)) File.Move(path, Path.Combine(Folder, final), overwrite: true);
                // Another process may be about to release it.
                else if (DateTime.UtcNow - File.GetLastWriteTimeUtc(path) > OldDraft) File.Delete(path);
            }
        }
    }

    private string PathOf(string id, Webhook webhook) => Path.Combine(Folder, $"{id}.{webhook.Key}{Ending}");

    // Of this process: another host may think that it ends the same run.
    private string DraftPath(string id, Webhook webhook) => $"{PathOf(id, webhook)}.{Environment.MachineName}-{Environment.ProcessId}{DraftEnding}";

    private void MakeRoom(Webhook webhook)
    {
        IReadOnlyList<string> pending = Pending(webhook);
        foreach (string oldest in pending.Take(pending.Count - Most + 1))
        {
            log.LogWarning("More than {Most} notices wait for {Webhook}: {Name} is given up", Most, webhook, Path.GetFileName(oldest));
            File.Delete(oldest);
        }
    }

    private void Guarded(string id, Action work)
    {
        try { work(); }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException) { log.LogWarning("The notice {Id} cannot be kept in {Folder}: {Message}", id, Folder, e.Message); }
    }

    private static void Write(string path, PendingNotice notice)
    {
        string aside = $"{path}.{Environment.ProcessId}.new";
        File.WriteAllText(aside, JsonSerializer.Serialize(notice, TrainingEvent.Json) + "\n");
        File.Move(aside, path, overwrite: true);
    }
}

/// <param name="Run">The id of the run.</param>
/// <param name="State">The state of the run that it tells of.</param>
/// <param name="Tries">That were not taken.</param>
/// <param name="Body">What is sent, the same each time.</param>
internal sealed record PendingNotice(string Id, string Run, RunState State, int Tries, string Body);
