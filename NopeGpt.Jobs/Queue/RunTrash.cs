using System.Globalization;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using NopeGpt.Jobs.Queue.Hosts;

namespace NopeGpt.Jobs.Queue;

/// <summary>trash/ in the storage root: the folders of deleted runs, which go for good after some days.</summary>
internal sealed class RunTrash(Store store, QueueOptions options, SharedTable shared, TimeProvider time, ILogger<RunTrash> log) : BackgroundService
{
    private const string DeletedName = "deleted";
    private static readonly TimeSpan LookEvery = TimeSpan.FromHours(1);

    public int Days => options.TrashDays;

    private string Root => Path.Combine(store.Root, "trash");

    /// <summary>Moves a run's folder here. The folder is whole at one of the two places at any time.</summary>
    /// <exception cref="IOException">It cannot be moved.</exception>
    public void Take(RunFolder folder)
    {
        Directory.CreateDirectory(Root);
        string target = PathOf(folder.Id);
        // Left by a deletion of the same run that was undone.
        if (Directory.Exists(target)) Directory.Delete(target, recursive: true);
        File.WriteAllText(Path.Combine(folder.Path, DeletedName), time.GetUtcNow().ToString("O", CultureInfo.InvariantCulture) + "\n");
        Directory.Move(folder.Path, target);
        if (options.TrashDays == 0) Delete(target);
    }

    /// <summary>Moves a run's folder back.</summary>
    /// <exception cref="UserException">It is not here, or a run of that id is in its place.</exception>
    public RunFolder Restore(string id)
    {
        if (!IsHere(id)) throw new UserException($"run {id} is not in the trash {Root}");
        string target = store.RunFolder(id);
        if (Path.Exists(target)) throw new UserException($"run {id} cannot be taken out of the trash: {target} is there already");
        File.Delete(Path.Combine(PathOf(id), DeletedName));
        Directory.Move(PathOf(id), target);
        return RunFolder.Open(target);
    }

    /// <summary>Ids of the runs that lie here, and when they were deleted.</summary>
    public IReadOnlyList<(string Id, DateTimeOffset Deleted)> List() =>
        Directory.Exists(Root) ? [.. Directory.EnumerateDirectories(Root).Order(StringComparer.Ordinal).Select(path => (Path.GetFileName(path), DeletedAt(path)))] : [];

    /// <summary>What lies here of that id; null where it is no run.</summary>
    public TrashedRun? Describe(string id, DateTimeOffset deleted)
    {
        string path = PathOf(id);
        if (!IsHere(id)) return null;
        string name = "";
        try { name = RunFolder.Open(path).Read().Config.Name; }
        catch (UserException) { /* It can be had back all the same. */ }
        return new TrashedRun(id, name, deleted, RunDisk.Bytes(path));
    }

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        using PeriodicTimer timer = new(LookEvery, time);
        do
        {
            // Elsewhere than on the thread that starts the host: a run may have thousands of files.
            await Task.Yield();
            if (shared.Leads) Empty();
        }
        while (await timer.WaitForNextTickAsync(stoppingToken).ConfigureAwait(false));
    }

    /// <summary>Deletes what has lain here for long enough.</summary>
    private void Empty()
    {
        try
        {
            foreach ((string id, DateTimeOffset deleted) in List().Where(t => time.GetUtcNow() - t.Deleted >= TimeSpan.FromDays(options.TrashDays))) Delete(PathOf(id));
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException) { log.LogWarning("The trash {Folder} cannot be looked at: {Message}", Root, e.Message); }
    }

    private void Delete(string path)
    {
        try
        {
            Directory.Delete(path, recursive: true);
            log.LogInformation("{Folder} is deleted for good", path);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException) { log.LogWarning("{Folder} cannot be deleted: {Message}", path, e.Message); }
    }

    // A link may lead out of the store.
    private bool IsHere(string id) => Store.IsName(id) && File.Exists(Path.Combine(PathOf(id), "run.json")) && new DirectoryInfo(PathOf(id)).LinkTarget is null;

    private string PathOf(string id) => Path.Combine(Root, id);

    private static DateTimeOffset DeletedAt(string path)
    {
        try { return DateTimeOffset.ParseExact(File.ReadAllText(Path.Combine(path, DeletedName)).Trim(), "O", CultureInfo.InvariantCulture); }
        catch (Exception e) when (e is FormatException or IOException) { return Directory.GetLastWriteTimeUtc(path); }
    }
}
