using System.Text.Json;
using NopeGpt.Jobs.Queue;
using NopeGpt.Jobs.Tests.Queue;

namespace NopeGpt.Jobs.Tests.Commands;

[Collection(QueueTestsGroup.Name)]
public sealed class QueueingOptionsTests(PreparedStore prepared) : IClassFixture<PreparedStore>
{
    private string[] Small(params string[] more) =>
        ["pretrain", "--root", prepared.Store.Root, "--dataset", PreparedStore.Stories, "--tokens_per_sample", "32", "--num_eval_samples=8", "--warmup_steps", "2", "--max_steps", "10", "--queue", .. more];

    [Fact]
    public async Task A_sweep_is_queued_by_the_next_dashboard_as_one_group_that_waits_for_its_run()
    {
        (int code, string output, string errors) = await NopeGptProcess.RunAsync(Small("--name", "first", "--json"));
        Assert.True(code == 0, errors);
        string first = JsonDocument.Parse(output).RootElement.GetProperty("id").GetString()!;
        (code, output, errors) = await NopeGptProcess.RunAsync(Small("--name", "rates", "--after", first, "--sweep", "learning-rate=1e-3..1e-2*2", "--sweep", "seed=1..2", "--json"));
        Assert.True(code == 0, errors);
        JsonElement document = JsonDocument.Parse(output).RootElement;
        string group = document.GetProperty("group").GetString()!;
        string[] runs = [.. document.GetProperty("runs").EnumerateArray().Select(r => r.GetString()!)];
        Assert.EndsWith(" rates", group, StringComparison.Ordinal);
        await using QueueHarness queue = await QueueHarness.StartAsync(prepared.Store.Root);
        queue.Queue.Change(paused: true);
        // The start finds the folders, and a look at them what they ask for.
        await WaitFor.TrueAsync(() => runs.All(id => queue.Queue.FindAsync(id).GetAwaiter().GetResult()?.State == RunState.Queued), "the runs in the queue");
        RunRow[] rows = [.. (await queue.Queue.ListAsync()).Where(r => r.Group == group)];
        Assert.Equal(runs, rows.Select(r => r.Id));
        Assert.Equal(["lr 1e-3, seed 1", "lr 1e-3, seed 2", "lr 0.01, seed 1", "lr 0.01, seed 2"], rows.Select(r => r.Name));
        Assert.All(rows, r => Assert.Equal((first, RunState.Queued), (r.After, r.State)));
        RunConfig last = queue.Folder(runs[3]).Read().Config;
        Assert.Equal((0.01, 2UL, 10), (last.Optimizer.LearningRate, last.Seed, last.Training.MaxSteps));
    }

    [Fact]
    public async Task Everything_wrong_is_told_at_once_and_no_run_is_made()
    {
        string[] before = Directory.GetDirectories(prepared.Store.RunsFolder);
        (int code, string output, string errors) = await NopeGptProcess.RunAsync(Small("--after", "nobody,../up", "--sweep", "learning_rate=fast,1e-3", "--sweep", "lora_rank=1,2", "--sweep", "seed=1..3", "--confirm", "x"));
        Assert.Equal((2, ""), (code, output));
        foreach (string says in new[] { "--after = nobody: there is no such run", "--after = ../up: there is no such run", "--confirm = x: give a whole number" }) Assert.Contains(says, errors, StringComparison.Ordinal);
        (code, _, errors) = await NopeGptProcess.RunAsync(Small("--sweep", "learning_rate=fast,1e-3", "--sweep", "lora_rank=1,2", "--sweep", "seed=1..3"));
        Assert.Equal(2, code);
        foreach (string says in new[] { "--sweep optimizer.learning_rate = fast: must be a number", "--sweep lora_rank = (empty): a run of the kind pretrain does not read finetune.lora_rank" }) Assert.Contains(says, errors, StringComparison.Ordinal);
        (code, _, errors) = await NopeGptProcess.RunAsync(Small("--sweep", "learning_rate=1e-3..1e-2*7", "--sweep", "seed=1..3"));
        Assert.Equal(2, code);
        Assert.Contains("--confirm = (empty): the sweep makes 21 runs, about 210 steps and 53,760 tokens in all, and more than 20 (Jobs:SweepCap) must be confirmed", errors, StringComparison.Ordinal);
        (code, _, errors) = await NopeGptProcess.RunAsync(Small("--sweep", "warmup_steps=2,20"));
        Assert.Equal(2, code);
        Assert.Contains("run 2 (warmup 20): optimizer.warmup_steps = 20", errors, StringComparison.Ordinal);
        Assert.Equal(before, Directory.GetDirectories(prepared.Store.RunsFolder));
    }

    [Fact]
    public async Task What_is_for_the_queue_is_refused_without_it()
    {
        (int code, _, string errors) = await NopeGptProcess.RunAsync([.. Small().Where(a => a != "--queue"), "--after", "nobody", "--sweep", "seed=1..2", "--confirm", "2"]);
        Assert.Equal(2, code);
        foreach (string option in new[] { "--after", "--sweep", "--confirm" }) Assert.Contains($"{option}: is for runs in the queue: add --queue", errors, StringComparison.Ordinal);
        (code, _, errors) = await NopeGptProcess.RunAsync(Small("--confirm", "2"));
        Assert.Equal(2, code);
        Assert.Contains("--confirm: is for a sweep: add --sweep", errors, StringComparison.Ordinal);
        (_, string help, _) = await NopeGptProcess.RunAsync("fine-tune", "--help");
        foreach (string says in new[] { "--sweep", "--after", "A..B*N", "--confirm" }) Assert.Contains(says, help, StringComparison.Ordinal);
    }
}
