using System.Diagnostics;
using System.Text.Json;
using Microsoft.Data.Sqlite;
using NopeGpt.Jobs.Queue;
using NopeGpt.Jobs.Tests.Queue;
using NopeGpt.Tests;

namespace NopeGpt.Jobs.Tests.Commands.Runs;

/// <summary>`nopegpt runs` as a process, on a store with and without a dashboard.</summary>
[Collection(QueueTestsGroup.Name)]
public sealed class RunsVerbTests : IDisposable
{
    private readonly TemporaryFolder folder = new();

    public void Dispose() => folder.Dispose();

    [Fact]
    public async Task What_is_changed_without_a_dashboard_is_what_the_next_one_finds()
    {
        string[] ids = await PausedRunsAsync("steps:1", "steps:2", "steps:3");
        (int code, string output, string errors) = await RunsAsync("list");
        Assert.True(code == ExitCode.Done, errors);
        Assert.Equal(["steps:1", "steps:2", "steps:3"], output.Split('\n').Skip(1).Where(l => l.Length > 0).Select(l => l.Split("  ")[1]));
        Assert.Contains("the queue is paused", errors, StringComparison.Ordinal);
        Assert.Equal(ExitCode.Done, (await RunsAsync("move", "steps:3", "top")).Code);
        Assert.Equal(ExitCode.Done, (await RunsAsync("set", ids[0], "--priority", "7", "--hold", "--tags", "a, b", "--notes", "two\nlines", "--not-before", "2100-01-02T03:04Z")).Code);
        JsonElement list = JsonDocument.Parse((await RunsAsync("list", "--json")).Output).RootElement;
        Assert.Equal([ids[0], ids[2], ids[1]], list.EnumerateArray().Select(r => r.GetProperty("id").GetString()));
        Assert.Equal([1, 2, 3], list.EnumerateArray().Select(r => r.GetProperty("queuePlace").GetInt32()));
        Assert.Equal((7, true, "two\nlines"), (list[0].GetProperty("priority").GetInt32(), list[0].GetProperty("held").GetBoolean(), list[0].GetProperty("notes").GetString()));
        Assert.Equal("2100-01-02T03:04:00+00:00", list[0].GetProperty("notBefore").GetString());

        LoseTable();
        await using QueueHarness next = await QueueHarness.StartAsync(folder.Path);
        IReadOnlyList<RunRow> rows = await next.Queue.ListAsync();
        Assert.Equal([ids[0], ids[2], ids[1]], rows.Select(r => r.Id));
        Assert.Equal(["a", "b"], rows[0].TagList);
        Assert.Equal(ExitCode.Done, (await RunsAsync("go-on")).Code);
        await next.UntilAsync(ids[1], RunState.Completed);
        Assert.Equal(RunState.Queued, (await next.Queue.FindAsync(ids[0]))!.State);
    }

    [Fact]
    public async Task A_dashboard_does_what_the_commands_say()
    {
        await using QueueHarness queue = await QueueHarness.StartAsync(folder.Path);
        string works = await queue.AddAsync("steps:2000 delay:20"), waits = await queue.AddAsync("steps:1");
        await queue.UntilCheckpointAsync(works);
        await queue.UntilAsync(waits, r => r.Reason is not null, "a reason");
        JsonElement shown = JsonDocument.Parse((await RunsAsync("show", works, "--json")).Output).RootElement;
        Assert.Equal(("Running", 100), (shown.GetProperty("state").GetString(), shown.GetProperty("maxSteps").GetInt64()));
        Assert.InRange(shown.GetProperty("step").GetInt64(), 0, 99);
        Assert.NotEmpty(shown.GetProperty("checkpoints").EnumerateArray());
        (_, string table, _) = await RunsAsync("list", "--state", "queued");
        Assert.Contains("is busy with run steps:2000 delay:20", table, StringComparison.Ordinal);

        (int code, string output, string errors) = await RunsAsync("stop", works, "--wait", "--json");
        Assert.True(code == ExitCode.Done, errors);
        Assert.Equal("Interrupted", JsonDocument.Parse(output).RootElement[0].GetProperty("state").GetString());
        await queue.UntilAsync(waits, RunState.Completed);
        (code, _, errors) = await RunsAsync("resume", works, waits);
        Assert.Equal(ExitCode.BadConfiguration, code);
        Assert.Equal("run steps:1 is completed: there is nothing left to do\n", errors);
        Assert.Equal(2, (await queue.UntilAsync(works, RunState.Running)).Attempt);
        Assert.Equal(ExitCode.Done, (await RunsAsync("stop", works, "--kill", "--wait")).Code);
        Assert.Matches("^killed as asked", (await queue.Queue.FindAsync(works))!.Reason);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task A_trainer_that_works_without_a_dashboard_is_stopped(bool kill)
    {
        RunFolder run = Alone("steps:5000 delay:10");
        using Process trainer = Process.Start(QueueHarness.DummyPath, ["train", run.Path]);
        await WaitFor.TrueAsync(() => run.Events().OfType<CheckpointEvent>().Any(), "a checkpoint");
        Assert.Contains("Running", (await RunsAsync("list")).Output, StringComparison.Ordinal);
        (int code, string output, string errors) = await RunsAsync(["stop", run.Id, "--wait", "--json", .. kill ? (string[])["--kill"] : []]);
        Assert.True(code == ExitCode.Done, errors);
        Assert.True(trainer.WaitForExit(TimeSpan.FromSeconds(10)));
        JsonElement ended = JsonDocument.Parse(output).RootElement[0];
        Assert.Equal("Interrupted", ended.GetProperty("state").GetString());
        Assert.Equal(!kill, run.Events().OfType<EndedEvent>().Any());
        (code, _, errors) = await RunsAsync("stop", run.Id);
        Assert.Equal((ExitCode.BadConfiguration, $"run {run.Read().Config.Name} is interrupted: there is nothing to stop\n"), (code, errors));
    }

    [Fact]
    public async Task Deleting_needs_a_yes_and_can_be_taken_back()
    {
        string[] ids = await PausedRunsAsync("steps:1", "steps:2");
        (int code, _, string errors) = await NopeGptProcess.RunWithInputAsync([], "runs", "delete", ids[0], "--root", folder.Path);
        Assert.Equal((ExitCode.BadConfiguration, "--yes: give it to delete runs, for stdin is no terminal and nobody can be asked\n"), (code, errors));
        Assert.True(Directory.Exists(new Store(folder.Path).RunFolder(ids[0])));
        (code, string output, _) = await RunsAsync("delete", ids[0], "steps:2", "--yes", "--json");
        Assert.Equal((ExitCode.Done, 2), (code, JsonDocument.Parse(output).RootElement.GetArrayLength()));
        Assert.Empty(Directory.EnumerateDirectories(new Store(folder.Path).RunsFolder));
        JsonElement trash = JsonDocument.Parse((await RunsAsync("list", "--trash", "--json")).Output).RootElement;
        Assert.Equal(ids.Order(), trash.EnumerateArray().Select(t => t.GetProperty("id").GetString()).Order());
        Assert.All(trash.EnumerateArray(), t => Assert.True(t.GetProperty("sizeBytes").GetInt64() > 0));
        Assert.Equal(ExitCode.Done, (await RunsAsync("restore", "steps:1", "steps:2")).Code);
        Assert.Equal(ids.Order(), JsonDocument.Parse((await RunsAsync("list", "--json")).Output).RootElement.EnumerateArray().Select(r => r.GetProperty("id").GetString()).Order());
    }

    [Fact]
    public async Task The_table_is_made_anew_unless_a_dashboard_works()
    {
        string[] ids = await PausedRunsAsync("steps:1", "steps:2", "steps:3");
        await RunsAsync("move", ids[2], "--to", "top");
        await RunsAsync("set", ids[1], "--notes", "kept");
        string before = (await RunsAsync("list", "--json")).Output;
        // An old table, as from a backup: what the folders say counts.
        LoseTable();
        (int code, string output, string errors) = await RunsAsync("rebuild", "--json");
        Assert.True(code == ExitCode.Done, errors);
        Assert.Equal(3, JsonDocument.Parse(output).RootElement.GetProperty("runs").GetInt32());
        Assert.Equal(before, (await RunsAsync("list", "--json")).Output);
        await using QueueHarness queue = await QueueHarness.StartAsync(folder.Path);
        (code, _, errors) = await RunsAsync("rebuild");
        Assert.Equal(ExitCode.BadConfiguration, code);
        Assert.StartsWith($"a dashboard (process {Environment.ProcessId}) works on {folder.Path}", errors, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Copies_and_forks_are_queued_with_what_is_to_differ()
    {
        using PreparedStore prepared = new();
        DateTimeOffset now = TimeProvider.System.GetUtcNow();
        RunConfig config = new() { Kind = RunKind.Pretrain, Name = "steps:4", Data = new DataConfig { Dataset = PreparedStore.Stories }, Training = new TrainingConfig { MaxSteps = 4 }, Optimizer = new OptimizerConfig { WarmupSteps = 0 } };
        RunFolder run = RunFolder.Create(prepared.Store, new RunRecord(RunRecord.CurrentFormat, RunFolder.NewId(now), now, [], config));
        Task<(int Code, string Output, string Errors)> RunsAsync(params string[] words) => NopeGptProcess.RunAsync(["runs", .. words, "--root", prepared.Store.Root]);
        Directory.CreateDirectory(Path.Combine(run.CheckpointsPath, "step-000000004"));
        await File.WriteAllTextAsync(Path.Combine(run.CheckpointsPath, "step-000000004", "model.safetensors"), "weights");
        (int code, string output, string errors) = await RunsAsync("fork", run.Id[..13], "--set", "max_steps=9", "optimizer.learning_rate=0.25", "--name", "further", "--json");
        Assert.True(code == ExitCode.Done, errors);
        JsonElement fork = JsonDocument.Parse(output).RootElement;
        Assert.Equal((run.Id, 4, "further"), (fork.GetProperty("parent").GetString(), fork.GetProperty("parentStep").GetInt64(), fork.GetProperty("name").GetString()));
        RunFolder forked = RunFolder.Open(fork.GetProperty("folder").GetString()!);
        Assert.Equal("weights", await File.ReadAllTextAsync(Path.Combine(forked.CheckpointsPath, "step-000000004", "model.safetensors")));
        Assert.Equal((9, 0.25), (forked.Read().Config.Training.MaxSteps, forked.Read().Config.Optimizer.LearningRate));
        (code, _, errors) = await RunsAsync("fork", run.Id, "--set", "max_stepz=9", "learning_rate=much", "nothing");
        Assert.Equal(ExitCode.BadConfiguration, code);
        foreach (string word in new[] { "max_stepz", "did you mean max_steps?", "learning_rate", "SETTING=VALUE" }) Assert.Contains(word, errors, StringComparison.Ordinal);
        Assert.Equal(ExitCode.Done, (await RunsAsync("pin", run.Id, "--step", "4")).Code);
        Assert.Equal([4], run.ReadCard().Pinned);
        (code, _, errors) = await RunsAsync("pin", run.Id, "--step", "5");
        Assert.Equal((ExitCode.BadConfiguration, "run steps:4 has no checkpoint of step 5: it may have been deleted already\n"), (code, errors));
    }

    [Fact]
    public async Task A_log_is_followed_to_its_end_without_its_control_characters()
    {
        await using QueueHarness queue = await QueueHarness.StartAsync(folder.Path);
        string id = await queue.AddAsync("steps:2000 delay:5");
        await queue.UntilCheckpointAsync(id);
        await File.AppendAllTextAsync(queue.Folder(id).LogPath, "a\e[31mb\n");
        using NopeGptProcess follower = new("runs", "logs", id, "--follow", "--lines", "1", "--root", folder.Path);
        await follower.HasWrittenAsync(5);
        await queue.Queue.StopAsync(id, StopRequest.Save);
        await queue.UntilAsync(id, RunState.Interrupted);
        (int code, string output, _) = await follower.EndAsync();
        Assert.Equal((ExitCode.Done, "a\\u001b[31mb\n"), (code, output));
    }

    [Fact]
    public async Task A_folder_that_is_a_link_out_of_the_store_is_no_run()
    {
        string[] ids = await PausedRunsAsync("steps:1");
        using TemporaryFolder elsewhere = new();
        string there = elsewhere["there"];
        Directory.Move(new Store(folder.Path).RunFolder(ids[0]), there);
        Directory.CreateSymbolicLink(new Store(folder.Path).RunFolder(ids[0]), there);
        (int code, _, string errors) = await RunsAsync("delete", ids[0], "--yes");
        Assert.Equal(ExitCode.BadConfiguration, code);
        Assert.Contains("there is no such run", errors, StringComparison.Ordinal);
        Assert.True(File.Exists(Path.Combine(there, "run.json")));
        Assert.False(File.Exists(Path.Combine(there, "deleted")));
    }

    [Fact]
    public async Task Whatever_a_name_holds_does_nothing_to_the_terminal()
    {
        RunFolder run = Alone("harmless");
        run.Write(run.Read() with { Config = run.Read().Config with { Name = "a\e]0;title\a\u202Eb" } });
        (_, string output, _) = await RunsAsync("list");
        Assert.Contains(@"a\u001b]0;title\u0007\u202eb", output, StringComparison.Ordinal);
        Assert.DoesNotContain(output, c => char.IsControl(c) && c != '\n');
        (_, output, _) = await RunsAsync("show", run.Id);
        Assert.Contains(@"a\u001b]0;title\u0007\u202eb", output, StringComparison.Ordinal);
        Assert.DoesNotContain(output, c => char.IsControl(c) && c != '\n');
    }

    [Fact]
    public async Task Everything_that_is_wrong_with_the_words_is_told_at_once()
    {
        (int code, _, string errors) = await RunsAsync("set", "x", "--priority", "1000", "--hold", "--release", "--not-before", "soon");
        Assert.Equal(ExitCode.BadConfiguration, code);
        foreach (string word in new[] { "--priority = 1000", "--release", "--not_before = soon" }) Assert.Contains(word, errors, StringComparison.Ordinal);
        (code, _, errors) = await RunsAsync("stop", "../x", "a\e[31m", new string('y', 300));
        Assert.Equal(ExitCode.BadConfiguration, code);
        Assert.Equal(3, errors.Split('\n', StringSplitOptions.RemoveEmptyEntries).Length);
        Assert.Contains(@"RUN = a\u001b[31m: there is no such run", errors, StringComparison.Ordinal);
    }

    private void LoseTable()
    {
        // This process still has it open.
        SqliteConnection.ClearAllPools();
        File.Delete(Path.Combine(folder.Path, "nopegpt.db"));
    }

    private Task<(int Code, string Output, string Errors)> RunsAsync(params string[] words) => NopeGptProcess.RunAsync(["runs", .. words, "--root", folder.Path]);

    /// <summary>A store with waiting runs, whose queue is paused and whose dashboard is closed.</summary>
    private async Task<string[]> PausedRunsAsync(params string[] names)
    {
        await using QueueHarness queue = await QueueHarness.StartAsync(folder.Path);
        queue.Queue.Change(paused: true);
        List<string> ids = [];
        foreach (string name in names) ids.Add(await queue.AddAsync(name));
        return [.. ids];
    }

    /// <summary>A run's folder that no table knows of.</summary>
    private RunFolder Alone(string name)
    {
        DateTimeOffset now = TimeProvider.System.GetUtcNow();
        return RunFolder.Create(new Store(folder.Path), new RunRecord(RunRecord.CurrentFormat, RunFolder.NewId(now), now, [], QueueHarness.Config(name, RunKind.Evaluate)));
    }
}
