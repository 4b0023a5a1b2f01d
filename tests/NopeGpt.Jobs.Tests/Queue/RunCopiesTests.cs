using System.Security.Cryptography;
using System.Text.Json;
using NopeGpt.Jobs.Queue;
using NopeGpt.Jobs.Training;
using NopeGpt.Model.Storage;
using NopeGpt.Tests;
using PreparedStore = NopeGpt.Tests.Training.PreparedStore;

namespace NopeGpt.Jobs.Tests.Queue;

/// <summary>Forks, copies, pins and the trash, on a run that was really trained. The queue is paused: what is to run runs in the test.</summary>
[Collection(QueueTestsGroup.Name)]
public sealed class RunCopiesTests : IAsyncLifetime, IDisposable
{
    private readonly PreparedStore prepared = new();
    private RunFolder trained = null!;

    private Store Store => prepared.Store;

    public async Task InitializeAsync()
    {
        await prepared.InitializeAsync();
        RunConfig config = PreparedStore.Small(12);
        trained = prepared.NewRun(config with { Training = config.Training with { CheckpointInterval = 4, KeepCheckpoints = 9, EvalInterval = 6 } });
        Assert.Equal(ExitCode.Done, await TrainAsync(trained));
    }

    public Task DisposeAsync() => Task.CompletedTask;

    public void Dispose() => prepared.Dispose();

    [Fact]
    public async Task A_fork_goes_on_from_the_checkpoint_to_the_bit_and_shares_its_files()
    {
        await using QueueHarness queue = await StartAsync();
        RunRow row = await queue.Queue.ForkAsync(trained.Id, 4);
        Assert.Equal((RunState.Queued, trained.Id, 4L), (row.State, row.Parent, row.ParentStep));
        RunFolder fork = queue.Folder(row.Id);
        FileInfo theirs = new(Path.Combine(Checkpoint.List(trained.CheckpointsPath).Single(c => c.Step == 4).Path, "model.safetensors"));
        Assert.Equal(Links(theirs.FullName), Links(Path.Combine(Checkpoint.List(fork.CheckpointsPath).Single().Path, "model.safetensors")));
        Assert.Equal(2, Links(theirs.FullName).Count);
        Assert.Equal(ExitCode.Done, await TrainAsync(fork));
        Assert.Equal(4, fork.Events().OfType<StartedEvent>().Single().FromStep);
        Assert.Equal(Weights(trained), Weights(fork));
        // The parent does not lose what the fork lets go of.
        Directory.Delete(fork.Path, recursive: true);
        Assert.NotNull(Checkpoint.NewestValid(trained.CheckpointsPath, _ => Assert.Fail("damaged")));
    }

    [Fact]
    public async Task A_fork_may_change_how_it_is_trained_and_nothing_else()
    {
        await using QueueHarness queue = await StartAsync();
        RunRow row = await queue.Queue.ForkAsync(trained.Id, changes: Json("""{"name": "slower", "training": {"max_steps": 14, "batch_size": 2}, "optimizer": {"learning_rate": 0.001}}"""));
        RunFolder fork = queue.Folder(row.Id);
        Assert.Equal(("slower", 14, 0.001), (fork.Read().Config.Name, fork.Read().Config.Training.MaxSteps, fork.Read().Config.Optimizer.LearningRate));
        Assert.Equal(ExitCode.Done, await TrainAsync(fork));
        Assert.Equal(14, Checkpoint.List(fork.CheckpointsPath)[0].Step);
        ProblemsException e = await Assert.ThrowsAsync<ProblemsException>(() => queue.Queue.ForkAsync(trained.Id, 8, Json("""{"model": {"num_decoder_layers": 3}, "seed": 9, "optimizer": {"optimizer": "adafactor"}, "training": {"max_steps": 8}}""")));
        Assert.Equal(["model.num_decoder_layers", "optimizer.optimizer", "seed", "training.max_steps"], e.Problems.Select(p => p.Field).Order());
        Assert.Contains("it has those of steps 4, 8, 12", (await Assert.ThrowsAsync<UserException>(() => queue.Queue.ForkAsync(trained.Id, 5))).Message, StringComparison.Ordinal);
        Assert.Equal(2, (await queue.Queue.ListAsync(kind: RunKind.Pretrain)).Count);
    }

    [Fact]
    public async Task A_duplicate_has_the_same_config_and_no_past()
    {
        await using QueueHarness queue = await StartAsync();
        await queue.Queue.ChangeAsync(trained.Id, new RunChange(Tags: ["good"]));
        RunRow row = await queue.Queue.DuplicateAsync(trained.Id, Json("""{"seed": 77}"""));
        RunFolder copy = queue.Folder(row.Id);
        Assert.Equal((trained.Id, null, "good", 77), (row.Parent, row.ParentStep, row.Tags, copy.Read().Config.Seed));
        Assert.Empty(Checkpoint.List(copy.CheckpointsPath));
        Assert.Equal(JsonSerializer.Serialize(trained.Read().Config with { Seed = 77 }), JsonSerializer.Serialize(copy.Read().Config));
    }

    [Fact]
    public async Task A_pinned_checkpoint_stays_whatever_the_policy_says()
    {
        await using QueueHarness queue = await StartAsync();
        RunRow row = await queue.Queue.ForkAsync(trained.Id, 4, Json("""{"training": {"max_steps": 24, "keep_checkpoints": 1}}"""));
        RunFolder fork = queue.Folder(row.Id);
        await queue.Queue.PinAsync(row.Id, 4, true);
        Assert.Equal(ExitCode.Done, await TrainAsync(fork));
        Assert.Contains(4, Checkpoint.List(fork.CheckpointsPath).Select(c => c.Step));
        Assert.DoesNotContain(8, Checkpoint.List(fork.CheckpointsPath).Select(c => c.Step));
        await queue.Queue.PinAsync(row.Id, 4, false);
        Assert.Empty(fork.ReadCard().Pinned);
        await Assert.ThrowsAsync<UserException>(() => queue.Queue.PinAsync(row.Id, 8, true));
    }

    [Fact]
    public async Task A_deleted_run_lies_in_the_trash_for_its_days_and_can_come_back()
    {
        await using (QueueHarness queue = await StartAsync())
        {
            string before = Weights(trained);
            await queue.Queue.DeleteAsync(trained.Id);
            Assert.Null(await queue.Queue.FindAsync(trained.Id));
            Assert.False(Directory.Exists(trained.Path));
            Assert.Equal(trained.Id, Assert.Single(queue.Queue.Trash).Id);
            RunRow row = await queue.Queue.RestoreAsync(trained.Id);
            Assert.Equal((RunState.Completed, 12L), (row.State, row.Step));
            Assert.Equal(before, Weights(trained));
            await Assert.ThrowsAsync<UserException>(() => queue.Queue.RestoreAsync("../" + trained.Id));
            await queue.Queue.DeleteAsync(trained.Id);
        }
        string trash = Path.Combine(Store.Root, "trash", trained.Id);
        await File.WriteAllTextAsync(Path.Combine(trash, "deleted"), (DateTimeOffset.UtcNow - TimeSpan.FromDays(6.9)).ToString("O"));
        await using (await StartAsync()) Assert.True(Directory.Exists(trash));
        await File.WriteAllTextAsync(Path.Combine(trash, "deleted"), (DateTimeOffset.UtcNow - TimeSpan.FromDays(7.1)).ToString("O"));
        await using (await StartAsync()) await WaitFor.TrueAsync(() => !Directory.Exists(trash), "the trash to be emptied");
    }

    [Fact]
    public async Task A_run_that_is_needed_or_at_work_is_not_deleted()
    {
        await using QueueHarness queue = await StartAsync();
        string waiting = await queue.AddAsync("steps:1", RunKind.Evaluate, trained.Id);
        Assert.Contains($"run steps:1 waits for it", (await Assert.ThrowsAsync<UserException>(() => queue.Queue.DeleteAsync(trained.Id))).Message, StringComparison.Ordinal);
        await queue.Queue.DeleteAsync(waiting);
        using (trained.TryLock()) Assert.Contains("stop it before you delete it", (await Assert.ThrowsAsync<UserException>(() => queue.Queue.DeleteAsync(trained.Id))).Message, StringComparison.Ordinal);
        queue.Queue.Change(paused: false);
        string working = await queue.AddAsync("steps:500 delay:20");
        await queue.UntilAsync(working, RunState.Running);
        Assert.Contains("is running: stop it before you delete it", (await Assert.ThrowsAsync<UserException>(() => queue.Queue.DeleteAsync(working))).Message, StringComparison.Ordinal);
        await Assert.ThrowsAsync<UserException>(() => queue.Queue.DeleteAsync("none"));
        await queue.Queue.DeleteAsync(trained.Id);
    }

    private static JsonElement Json(string text) => JsonDocument.Parse(text).RootElement;

    private static string Weights(RunFolder run) => Convert.ToHexString(SHA256.HashData(File.ReadAllBytes(Path.Combine(Checkpoint.List(run.CheckpointsPath)[0].Path, "model.safetensors"))));

    /// <summary>The names of the file's data: paths in this store that are the same file.</summary>
    private IReadOnlyList<string> Links(string file)
    {
        using System.Diagnostics.Process find = System.Diagnostics.Process.Start(new System.Diagnostics.ProcessStartInfo("find", [Store.Root, "-samefile", file]) { RedirectStandardOutput = true })!;
        return [.. find.StandardOutput.ReadToEnd().Split('\n', StringSplitOptions.RemoveEmptyEntries).Order()];
    }

    private Task<int> TrainAsync(RunFolder run) => TrainerProcessMain.RunAsync(run.Path, Store, false, null, default);

    private async Task<QueueHarness> StartAsync()
    {
        QueueHarness queue = await QueueHarness.StartAsync(Store.Root);
        queue.Queue.Change(paused: true);
        return queue;
    }
}
