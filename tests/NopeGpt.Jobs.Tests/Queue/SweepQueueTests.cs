using NopeGpt.Jobs.Queue;
using NopeGpt.Model;
using NopeGpt.Tests;

namespace NopeGpt.Jobs.Tests.Queue;

[Collection(QueueTestsGroup.Name)]
public sealed class SweepQueueTests : IDisposable
{
    private static readonly RunConfig Start = new() { Kind = RunKind.Tokenizer, Name = "words", Tokenizer = new TokenizerConfig { Name = "words", Source = PrepareConfig.Stories } };

    private readonly TemporaryFolder folder = new();

    public void Dispose() => folder.Dispose();

    [Fact]
    public async Task The_runs_of_a_sweep_stand_in_the_queue_as_one_group_in_their_order()
    {
        await using QueueHarness queue = await QueueHarness.StartAsync(folder.Path);
        queue.Queue.Change(paused: true);
        string before = await queue.AddAsync("steps:1", RunKind.Prepare);
        (string group, IReadOnlyList<string> runs) = await queue.Queue.AddSweepAsync(Start, Axes("minimum_frequency=1,2", "tokenizer.vocabulary_size=300..500+3"), after: [before, before], priority: 7, tags: ["first", "first"]);
        RunRow[] rows = [.. (await queue.Queue.ListAsync()).Where(r => r.Group.Length > 0)];
        Assert.Equal(runs, rows.Select(r => r.Id));
        Assert.Equal(runs.Order(StringComparer.Ordinal), runs);
        Assert.Equal(["minimum frequency 1, vocabulary size 300", "minimum frequency 1, vocabulary size 400", "minimum frequency 1, vocabulary size 500",
            "minimum frequency 2, vocabulary size 300", "minimum frequency 2, vocabulary size 400", "minimum frequency 2, vocabulary size 500"], rows.Select(r => r.Name));
        Assert.All(rows, r => Assert.Equal((group, 7, "first", before), (r.Group, r.Priority, r.Tags, r.After)));
        Assert.Matches(@"\A\d{8}-\d{6}-[0-9a-f]{4} words\z", group);
        // Each makes a tokenizer of its own.
        Assert.Equal([("words-1", 300), ("words-6", 500)], new[] { runs[0], runs[5] }.Select(id => queue.Folder(id).Read().Config.Tokenizer).Select(t => (t.Name, t.VocabularySize)));
        Assert.All(runs, id => Assert.Equal(group, queue.Folder(id).ReadCard().Group));
    }

    [Fact]
    public async Task More_runs_than_the_cap_need_their_exact_number_confirmed()
    {
        await using QueueHarness queue = await QueueHarness.StartAsync(folder.Path, ("Jobs:SweepCap", "4"));
        queue.Queue.Change(paused: true);
        RunConfig pretrain = QueueHarness.Config("", RunKind.Pretrain) with { Training = new TrainingConfig { MaxSteps = 1000, BatchSize = 2, GradientAccumulationSteps = 3 } };
        string prepare = await queue.AddAsync("steps:1", RunKind.Prepare);
        Task<(string, IReadOnlyList<string> Runs)> Add(long? confirm, params string[] axes) => queue.Queue.AddSweepAsync(pretrain, Axes(axes), confirm, [prepare]);
        Problem problem = Assert.Single((await Assert.ThrowsAsync<ProblemsException>(() => Add(null, "seed=1..6", "learning_rate=1e-3,2e-3"))).Problems);
        Assert.Equal(("confirm", "", "the sweep makes 12 runs, about 12,000 steps and 18,432,000 tokens in all, and more than 4 (Jobs:SweepCap) must be confirmed: give confirm 12 if you want them"), (problem.Field, problem.Value, problem.Message));
        problem = Assert.Single((await Assert.ThrowsAsync<ProblemsException>(() => Add(11, "seed=1..6", "learning_rate=1e-3,2e-3"))).Problems);
        Assert.Equal(("confirm", "11"), (problem.Field, problem.Value));
        // A wrong number is told of small ones too.
        await Assert.ThrowsAsync<ProblemsException>(() => Add(3, "seed=1..2"));
        Assert.Single(await queue.Queue.ListAsync());
        Assert.Equal(4, (await Add(null, "seed=1..4")).Runs.Count);
        Assert.Equal(12, (await Add(12, "seed=11..16", "learning_rate=1e-3,2e-3")).Runs.Count);
        Assert.Equal(17, (await queue.Queue.ListAsync()).Count);
    }

    [Fact]
    public async Task Every_run_is_checked_and_what_is_wrong_names_it()
    {
        await using QueueHarness queue = await QueueHarness.StartAsync(folder.Path);
        await File.WriteAllTextAsync(folder["text.txt"], "words");
        async Task<IReadOnlyList<Problem>> Wrong(RunConfig start, params string[] axes) => (await Assert.ThrowsAsync<ProblemsException>(() => queue.Queue.AddSweepAsync(start, Axes(axes)))).Problems;
        // Alone in one run, in some, and in all.
        IReadOnlyList<Problem> problems = await Wrong(Start with { Threads = -1 }, "tokenizer.minimum_frequency=1,-2", "tokenizer.vocabulary_size=300,400", $"tokenizer.source={folder["text.txt"]},{folder["nothing.txt"]}");
        Assert.Equal(["all 8 runs: threads", "4 runs, the first 2 (minimum frequency 1, vocabulary size 300, source nothing.txt): tokenizer.source", "4 runs, the first 5 (minimum frequency -2, vocabulary size 300, source text.txt): tokenizer.minimum_frequency"], problems.Select(p => p.Field));
        problems = await Wrong(Start, "tokenizer.vocabulary_size=300,400,100");
        Assert.Equal("run 3 (vocabulary size 100): tokenizer.vocabulary_size", Assert.Single(problems).Field);
        problems = await Wrong(Start, "tokenizer.name=a,b", "tokenizer.vocabulary_size=300,400");
        Assert.Equal([("run 1 (name a, vocabulary size 300) and run 2 (name a, vocabulary size 400)", "would make a in 2 ways: leave its name out of the sweep, and each gets one of its own"), ("run 3 (name b, vocabulary size 300) and run 4 (name b, vocabulary size 400)", "would make b in 2 ways: leave its name out of the sweep, and each gets one of its own")], problems.Select(p => (p.Value, p.Message)));
        // The same place by two words is one run too many.
        string model = Directory.CreateDirectory(folder["model"]).FullName;
        await File.WriteAllTextAsync(Path.Combine(model, "model.safetensors"), "");
        Problem twice = Assert.Single(await Wrong(new RunConfig { Kind = RunKind.Evaluate }, $"evaluate.checkpoint={model},{folder.Path}/./model"));
        Assert.Equal("axes", twice.Field);
        Assert.Matches(@"\Arun 1 \(checkpoint .*\) and run 2 \(checkpoint .*\)\z", twice.Value);
        // No more than can be read.
        problems = await Wrong(Start, "tokenizer.vocabulary_size=1..20");
        Assert.Equal(20, problems.Count);
        RunConfig many = Start with { Threads = -1 };
        problems = (await Assert.ThrowsAsync<ProblemsException>(() => queue.Queue.AddSweepAsync(many, Axes("tokenizer.vocabulary_size=1..30"), 30))).Problems;
        Assert.Equal(21, problems.Count);
        Assert.Equal("11 more problems", problems[^1].Value);
        Assert.Empty(await queue.Queue.ListAsync());
        Assert.Empty(Directory.EnumerateFileSystemEntries(queue.Store.RunsFolder));
    }

    private static SweepAxis[] Axes(params string[] words) => [.. words.Select(SweepAxis.Parse)];
}
