using NopeGpt.Data;
using NopeGpt.Data.Tokenization;
using Hangfire;
using Hangfire.Common;
using Hangfire.States;
using NopeGpt.Jobs.Queue;
using NopeGpt.Tests;

namespace NopeGpt.Jobs.Tests.Queue;

[Collection(QueueTestsGroup.Name)]
public sealed class RunQueueTests : IDisposable
{
    private readonly TemporaryFolder folder = new();

    public void Dispose() => folder.Dispose();

    [Fact]
    public async Task A_run_goes_through_the_queue_and_its_row_tells_of_it()
    {
        Environment.SetEnvironmentVariable("ASPNETCORE_NOPEGPT_TEST", "1");
        await using QueueHarness queue = await QueueHarness.StartAsync(folder.Path);
        List<RunState> states = [];
        queue.Queue.Changed += id => { lock (states) states.Add(queue.Queue.FindAsync(id).GetAwaiter().GetResult()!.State); };
        string id = await queue.AddAsync("steps:4 delay:300", RunKind.Pretrain, await Completed(queue));
        RunRow row = await queue.UntilAsync(id, RunState.Completed);
        Assert.Equal((1, 4L, 4L), (row.Attempt, row.Step, row.MaxSteps));
        Assert.Null(row.Reason);
        Assert.Null(row.LeaseOwner);
        Assert.Null(row.ProcessId);
        Assert.True(row.Ended >= row.Started && row.Started >= row.Created);
        lock (states) Assert.Subset(states.ToHashSet(), new HashSet<RunState> { RunState.Queued, RunState.Starting, RunState.Running, RunState.Completed });
        Assert.Contains("web names: \n", File.ReadAllText(queue.Folder(id).LogPath));
    }

    [Fact]
    public async Task Runs_of_a_chain_wait_for_each_other_and_say_so()
    {
        await using QueueHarness queue = await QueueHarness.StartAsync(folder.Path);
        IReadOnlyList<string> ids = await queue.Queue.AddChainAsync(
        [
            QueueHarness.Config("steps:30 delay:50", RunKind.Prepare),
            QueueHarness.Config("steps:3", RunKind.Pretrain),
            QueueHarness.Config("steps:3", RunKind.Evaluate),
        ]);
        RunRow waiting = await queue.UntilAsync(ids[1], r => r.Reason?.EndsWith(" %)", StringComparison.Ordinal) == true, "a reason with progress");
        Assert.StartsWith("waiting for run steps:30 delay:50 (prepare, ", waiting.Reason);
        await queue.UntilAsync(ids[2], RunState.Completed);
        List<RunRow> rows = [];
        foreach (string id in ids) rows.Add((await queue.Queue.FindAsync(id))!);
        Assert.All(rows, r => Assert.Equal(RunState.Completed, r.State));
        Assert.True(rows[0].Ended <= rows[1].Started && rows[1].Ended <= rows[2].Started);
        Assert.Equal(ids[1], queue.Folder(ids[2]).Read().Config.Evaluate.Checkpoint);
    }

    [Fact]
    public async Task What_follows_a_failed_run_is_cancelled_with_the_reason_and_can_go_on_only_after_it()
    {
        await using QueueHarness queue = await QueueHarness.StartAsync(folder.Path);
        string first = await queue.AddAsync("exit:4", RunKind.Prepare);
        string second = await queue.AddAsync("steps:1", RunKind.Pretrain, first);
        string third = await queue.AddAsync("steps:2", RunKind.Evaluate, second);
        Assert.Equal("run exit:4, which it waits for, has failed", (await queue.UntilAsync(second, RunState.Cancelled)).Reason);
        Assert.Equal("run steps:1, which it waits for, was cancelled, because run exit:4 has failed", (await queue.UntilAsync(third, RunState.Cancelled)).Reason);
        Assert.Equal("told to fail with 4", (await queue.Queue.FindAsync(first))!.Reason);
        UserException e = await Assert.ThrowsAsync<UserException>(() => queue.Queue.ResumeAsync(second));
        Assert.Equal("run steps:1 cannot go on: run exit:4, which it waits for, has failed; resume that one first", e.Message);
    }

    [Fact]
    public async Task A_relative_path_is_kept_whole_since_the_trainer_works_elsewhere()
    {
        await using QueueHarness queue = await QueueHarness.StartAsync(folder["root"]);
        string text = folder["text.txt"], model = Directory.CreateDirectory(folder["model"]).FullName;
        await File.WriteAllTextAsync(text, "words");
        await File.WriteAllTextAsync(Path.Combine(model, "model.safetensors"), "");
        Tokenizer tokenizer = BytePairTrainer.Train(["words and words"], 260);
        tokenizer.Save(folder.Path);
        using (TokenFileWriter writer = new(folder["tokens.bin"], tokenizer.VocabularySize, tokenizer.Hash))
        {
            writer.Append(tokenizer.Encode(new string('w', 100)).ToArray(), 100);
            writer.Complete();
        }
        string Relative(string path) => Path.GetRelativePath(Environment.CurrentDirectory, path);
        RunRow prepare = await queue.Queue.AddAsync(new RunConfig { Kind = RunKind.Prepare, Name = "steps:1", Prepare = new PrepareConfig { Source = Relative(text), Dataset = "own" } });
        RunRow evaluate = await queue.Queue.AddAsync(new RunConfig
        {
            Kind = RunKind.Evaluate, Name = "steps:1", Data = new DataConfig { Dataset = Relative(folder["tokens.bin"]), TokensPerSample = 8, NumEvalSamples = 1 }, Evaluate = new EvaluateConfig { Checkpoint = Relative(model) },
        });
        Assert.Equal(text, queue.Folder(prepare.Id).Read().Config.Prepare.Source);
        RunConfig kept = queue.Folder(evaluate.Id).Read().Config;
        Assert.Equal((folder["tokens.bin"], model), (kept.Data.Dataset, kept.Evaluate.Checkpoint));

        // A data set of the Hub has no path here.
        const string Hub = "hub:roneneldan/TinyStories:default:train@main";
        RunRow words = await queue.Queue.AddAsync(new RunConfig { Kind = RunKind.Tokenizer, Name = "steps:1", Tokenizer = new TokenizerConfig { Name = "words", Source = Relative(text) }, Prepare = new PrepareConfig { Source = Hub } });
        kept = queue.Folder(words.Id).Read().Config;
        Assert.Equal((text, Hub), (kept.Tokenizer.Source, kept.Prepare.Source));
    }

    [Fact]
    public async Task An_evaluation_that_waits_for_none_must_name_its_checkpoint()
    {
        await using QueueHarness queue = await QueueHarness.StartAsync(folder.Path);
        ProblemsException e = await Assert.ThrowsAsync<ProblemsException>(() => queue.Queue.AddAsync(QueueHarness.Config("steps:1", RunKind.Evaluate)));
        Assert.Equal("evaluate.checkpoint", Assert.Single(e.Problems).Field);
    }

    [Fact]
    public async Task One_run_at_a_time_has_the_device_and_preparation_goes_on_beside_it()
    {
        await using QueueHarness queue = await QueueHarness.StartAsync(folder.Path);
        string first = await queue.AddAsync("steps:1000 delay:20");
        string second = await queue.AddAsync("steps:2");
        await queue.UntilAsync(first, RunState.Running);
        RunRow row = await queue.UntilAsync(second, r => r.Reason is not null, "a reason");
        Assert.Matches(@"\Awaiting: the (CPU|GPU) is busy with run steps:1000 delay:20 \(evaluate", row.Reason);
        string beside = await queue.AddAsync("steps:1", RunKind.Prepare);
        await queue.UntilAsync(beside, RunState.Completed);
        Assert.Equal(RunState.Running, (await queue.Queue.FindAsync(first))!.State);
        Assert.Equal([second], (await queue.Queue.ListAsync(RunState.Queued)).Select(r => r.Id));
        await queue.Queue.StopAsync(first, StopRequest.Save);
        await queue.UntilAsync(second, RunState.Completed);
    }

    [Fact]
    public async Task A_run_that_waits_can_be_taken_out_and_put_back()
    {
        await using QueueHarness queue = await QueueHarness.StartAsync(folder.Path);
        string first = await queue.AddAsync("steps:1000 delay:20");
        string second = await queue.AddAsync("steps:2");
        await queue.Queue.StopAsync(second, StopRequest.Save);
        Assert.Equal(RunState.Cancelled, (await queue.Queue.FindAsync(second))!.State);
        await queue.UntilCheckpointAsync(first);
        await queue.Queue.StopAsync(first, StopRequest.Save);
        await queue.UntilAsync(first, RunState.Interrupted);
        Assert.Equal(0, (await queue.Queue.FindAsync(second))!.Attempt);
        await queue.Queue.ResumeAsync(second);
        await queue.UntilAsync(second, RunState.Completed);
    }

    [Fact]
    public async Task A_second_delivery_of_the_job_does_nothing()
    {
        await using QueueHarness queue = await QueueHarness.StartAsync(folder.Path);
        string id = await queue.AddAsync("steps:60 delay:20");
        await queue.UntilAsync(id, RunState.Running);
        IBackgroundJobClient jobs = queue.Service<IBackgroundJobClient>();
        // The other slot's worker is free to run it at once, as a requeue by hand would.
        string again = jobs.Create(Job.FromExpression<TrainingJob>(job => job.RunAsync(id, CancellationToken.None)), new EnqueuedState("preparation"));
        JobStorage storage = queue.Service<JobStorage>();
        await WaitFor.TrueAsync(() => storage.GetConnection().GetStateData(again)?.Name == "Succeeded", "the second delivery");
        Assert.Equal(RunState.Running, (await queue.Queue.FindAsync(id))!.State);
        Assert.Equal(1, (await queue.UntilAsync(id, RunState.Completed)).Attempt);
        await queue.Service<Supervisor>().StartAsync(id);
        Assert.Equal(RunState.Completed, (await queue.Queue.FindAsync(id))!.State);
        Assert.Single(queue.Folder(id).Events().OfType<StartedEvent>());
    }

    [Fact]
    public async Task Of_many_who_ask_at_once_one_gets_the_lease()
    {
        await using QueueHarness queue = await QueueHarness.StartAsync(folder.Path);
        RunLedger ledger = queue.Service<RunLedger>();
        await ledger.AddAsync(new RunRow { Id = "wanted", State = RunState.Starting, LeaseOwner = "nobody yet" });
        await ledger.MoveAsync("wanted", [RunState.Starting], r => r.SetProperty(x => x.LeaseOwner, (string?)null));
        bool[] got = await Task.WhenAll(Enumerable.Range(0, 20).Select(n => Task.Run(() => ledger.TakeLeaseAsync("wanted", $"owner {n}", DateTimeOffset.UnixEpoch))));
        // The dispatcher may be the one: it hands over what is claimed and nobody's.
        Assert.InRange(got.Count(g => g), 0, 1);
        Assert.Equal(1, (await queue.Queue.FindAsync("wanted"))!.Attempt);
    }

    [Fact]
    public async Task What_cannot_go_on_says_why()
    {
        await using QueueHarness queue = await QueueHarness.StartAsync(folder.Path);
        string done = await Completed(queue);
        Assert.EndsWith("is completed: there is nothing left to do", (await Assert.ThrowsAsync<UserException>(() => queue.Queue.ResumeAsync(done))).Message);
        string id = await queue.AddAsync("steps:1000 delay:20");
        await queue.UntilAsync(id, RunState.Running);
        Assert.EndsWith("is running: only a run that has ended unfinished can go on", (await Assert.ThrowsAsync<UserException>(() => queue.Queue.ResumeAsync(id))).Message);
        Assert.Equal("there is no run nothing: name one of the list", (await Assert.ThrowsAsync<UserException>(() => queue.Queue.StopAsync("nothing", StopRequest.Save))).Message);
        await queue.Queue.StopAsync(done, StopRequest.Kill);
        Assert.Equal(RunState.Completed, (await queue.Queue.FindAsync(done))!.State);
    }

    [Fact]
    public async Task A_bad_config_makes_no_run()
    {
        await using QueueHarness queue = await QueueHarness.StartAsync(folder.Path);
        RunConfig bad = new() { Kind = RunKind.Prepare, Threads = -1, Prepare = new PrepareConfig { Dataset = "../up" } };
        ProblemsException e = await Assert.ThrowsAsync<ProblemsException>(() => queue.Queue.AddAsync(bad));
        Assert.Equal(["prepare.dataset", "threads"], e.Problems.Select(p => p.Field).Order());
        Assert.Equal("after", Assert.Single((await Assert.ThrowsAsync<ProblemsException>(() => queue.AddAsync("steps:1", RunKind.Evaluate, "no-such-run"))).Problems).Field);
        Assert.Empty(Directory.EnumerateFileSystemEntries(queue.Store.RunsFolder));
        Assert.Empty(await queue.Queue.ListAsync());
    }

    private static async Task<string> Completed(QueueHarness queue)
    {
        string id = await queue.AddAsync("steps:1", RunKind.Prepare);
        await queue.UntilAsync(id, RunState.Completed);
        return id;
    }
}
