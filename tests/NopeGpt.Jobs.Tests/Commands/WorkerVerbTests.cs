using NopeGpt.Jobs.Queue;
using NopeGpt.Jobs.Tests.Queue;
using NopeGpt.Tests;

namespace NopeGpt.Jobs.Tests.Commands;

/// <summary>`nopegpt worker` as processes, with trainers that really work.</summary>
[Collection(QueueTestsGroup.Name)]
public sealed class WorkerVerbTests(PostgreSqlForTests database) : IDisposable
{
    private readonly TemporaryFolder folder = new();

    public void Dispose() => folder.Dispose();

    [NeedsFact(Needs.PostgreSql)]
    public async Task Two_workers_work_off_forty_runs_each_once_though_one_is_killed()
    {
        string connection = await database.NewAsync();
        await using SharedQueue queue = await SharedQueue.OpenAsync(folder["root"], connection);
        File.WriteAllText(folder["text.txt"], string.Join('\n', Enumerable.Range(0, 200).Select(n => $"line {n} of a short text")));
        for (int i = 0; i < 40; i++)
        {
            // Small things that are soon done, of two kinds; what is killed goes on by itself.
            RunConfig config = i % 2 == 0
                ? new RunConfig { Kind = RunKind.Prepare, Name = $"data {i}", Prepare = new PrepareConfig { Dataset = $"data-{i}", Source = folder["text.txt"], VocabularySize = 270 } }
                : new RunConfig { Kind = RunKind.Tokenizer, Name = $"tokenizer {i}", Tokenizer = new TokenizerConfig { Name = $"tokenizer-{i}", Source = folder["text.txt"], VocabularySize = 270 } };
            await queue.Queue.AddAsync(config);
        }
        using NopeGptProcess first = Start(connection, "first"), second = Start(connection, "second");
        await first.SaysAsync("is started");
        await second.SaysAsync("is started");
        first.Signal("KILL");
        IReadOnlyList<RunRow> rows = await queue.UntilAllCompletedAsync();
        Assert.Equal(40, rows.Count);
        foreach (RunRow twice in rows.Where(r => (r.Attempt, queue.Starts(r.Id)) != (1, 1)))
            Assert.Fail($"run {twice.Title} had {twice.Attempt} attempts and {queue.Starts(twice.Id)} starts\n{File.ReadAllText(RunFolder.Open(queue.Store.RunFolder(twice.Id)).LogPath)}\nfirst:\n{first.Errors}\nsecond:\n{second.Errors}");
        Assert.Contains(rows, r => r.Host == "second");
        for (int i = 0; i < 40; i++) Assert.True(i % 2 == 0 ? File.Exists(queue.Store.DatasetTokens($"data-{i}")) : Directory.Exists(queue.Store.TokenizerFolder($"tokenizer-{i}")), $"run {i}");
        second.Signal("TERM");
        Assert.Equal(ExitCode.Done, (await second.EndAsync()).Code);
        Assert.Contains("save and end", second.Errors);
    }

    [NeedsFact(Needs.PostgreSql)]
    public async Task A_name_that_another_worker_has_is_refused()
    {
        string connection = await database.NewAsync();
        await using SharedQueue queue = await SharedQueue.OpenAsync(folder["root"], connection);
        using NopeGptProcess first = Start(connection, "twin"), second = Start(connection, "Twin");
        NopeGptProcess refused = await Task.WhenAny(first.EndAsync(), second.EndAsync()) is var ended && first.HasExited ? first : second;
        (int code, _, string errors) = await refused.EndAsync();
        Assert.Equal(ExitCode.BadConfiguration, code);
        Assert.Equal("another process works on this queue as host twin: end it, or give this one a name of its own with Jobs:Host (nopegpt worker --name)", errors.Trim());
        Assert.True(ended.IsCompleted);
    }

    [Fact]
    public async Task Everything_that_is_wrong_is_said_at_once()
    {
        (int code, _, string errors) = await NopeGptProcess.RunAsync("worker", "--root", folder["none"], "--name", "two words", "--slots", "99");
        Assert.Equal(ExitCode.BadConfiguration, code);
        string[] lines = errors.Trim().Split('\n');
        Assert.Equal(4, lines.Length);
        Assert.Equal($"--root = {folder["none"]}: there is no such folder: mount the shared storage root there, or name it with --root or Storage:Root", lines[0]);
        Assert.Equal("--name = two words: use letters, digits, - and _, at most 40, beginning with a letter or digit", lines[1]);
        Assert.Equal("--slots = 99: give a whole number from 0 to 64", lines[2]);
        Assert.StartsWith("Jobs:Storage = InMemory: a worker needs PostgreSql (and Jobs:ConnectionString)", lines[3]);
        Assert.False(Directory.Exists(folder["none"]));
    }

    [Theory]
    [InlineData("", "Jobs:Storage = PostgreSql needs Jobs:ConnectionString, for example Host=localhost;Database=nopegpt;Username=nopegpt")]
    [InlineData("Host=127.0.0.1;Port=1;Username=nobody;Password=secret;Timeout=2", "the PostgreSQL of Jobs:ConnectionString cannot be used (")]
    [InlineData("nonsense", "Jobs:ConnectionString is no connection string of PostgreSQL (")]
    public async Task A_database_that_cannot_be_used_is_said_in_one_line_without_its_password(string connection, string message)
    {
        using NopeGptProcess worker = Start(connection, "any", Directory.CreateDirectory(folder["root"]).FullName);
        (int code, _, string errors) = await worker.EndAsync();
        Assert.Equal(ExitCode.BadConfiguration, code);
        Assert.StartsWith(message, errors);
        Assert.Single(errors.Trim().Split('\n'));
        Assert.DoesNotContain("secret", errors);
    }

    private NopeGptProcess Start(string connection, string name, string? root = null) => new(
        new Dictionary<string, string> { ["NOPEGPT_Jobs__Storage"] = "PostgreSql", ["NOPEGPT_Jobs__ConnectionString"] = connection, ["NOPEGPT_Jobs__LeaseSeconds"] = "2", ["NOPEGPT_Jobs__PreparationSlots"] = "2" },
        ["worker", "--root", root ?? folder["root"], "--name", name]);
}
