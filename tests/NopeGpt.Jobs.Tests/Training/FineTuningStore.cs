using System.Text.Json;
using NopeGpt.Data.Documents;
using NopeGpt.Jobs;
using NopeGpt.Jobs.Training;
using NopeGpt.Model.Storage;

namespace NopeGpt.Tests.Training;

/// <summary>A store with a small base, trained on stories, and conversations of its tokenizer.</summary>
public sealed class FineTuningStore : IAsyncLifetime, IDisposable
{
    public const string Talks = "talks", More = "more";

    private readonly PreparedStore prepared = new();
    private readonly TemporaryFolder temporary = new();

    public Store Store => prepared.Store;

    /// <summary>The run that trained the base.</summary>
    public RunFolder Base { get; private set; } = null!;

    /// <summary>The newest checkpoint of it.</summary>
    public string BaseFolder => Checkpoint.List(Base.CheckpointsPath)[0].Path;

    /// <summary>A path of a test's own.</summary>
    public string this[string relative] => temporary[relative];

    public async Task InitializeAsync()
    {
        await prepared.InitializeAsync();
        Base = prepared.NewRun(PreparedStore.Small(20));
        Assert.Equal(ExitCode.Done, await RunAsync(Base));
        await PrepareAsync(Talks, StoryGenerator.Stories(3).Take(48).Select((story, i) => Talk($"Tell me story {i}", story[..(40 + i)])), "small");
        await PrepareAsync(More, StoryGenerator.Stories(4).Take(12).Select(story => Talk("Another one", story[..50])), "small");
    }

    public Task DisposeAsync() => Task.CompletedTask;

    public void Dispose()
    {
        temporary.Dispose();
        prepared.Dispose();
    }

    public RunFolder NewRun(RunConfig config) => prepared.NewRun(config);

    public Task<int> RunAsync(RunFolder run, Action<TrainingEvent>? watch = null, CancellationToken stop = default) => TrainerProcessMain.RunAsync(run.Path, Store, false, null, stop, watch);

    /// <summary>Makes a chat set of one JSON record a conversation.</summary>
    /// <param name="tokenizer">Empty trains one of its own.</param>
    public async Task PrepareAsync(string name, IEnumerable<object> conversations, string tokenizer)
    {
        string file = temporary[name + ".jsonl"];
        await File.WriteAllLinesAsync(file, conversations.Select(c => JsonSerializer.Serialize(c)));
        RunFolder run = prepared.NewRun(new RunConfig { Kind = RunKind.Prepare, Prepare = new PrepareConfig { Source = file, Kind = PrepareKind.Chat, Tokenizer = tokenizer, VocabularySize = 300, Dataset = name } });
        Assert.Equal(ExitCode.Done, await RunAsync(run));
    }

    public static object Talk(string asks, string replies) => new { messages = new object[] { new { role = "user", content = asks }, new { role = "assistant", content = replies } } };

    /// <summary>A run of a second, with dropout and activation checkpointing, so that generators and the second pass matter.</summary>
    public RunConfig Small(FinetuneMethod method, int steps) => RunConfig.For(RunKind.Finetune) with
    {
        Name = "tuned",
        Threads = 1,
        Device = "cpu",
        Data = new DataConfig { NumEvalSamples = 6 },
        Finetune = new FinetuneConfig { BaseCheckpointPath = Base.Id, DatasetSubsets = [Talks], Method = method, MaxTokensPerSample = 80, LoraRank = method == FinetuneMethod.Lora ? 3 : 8, LoraDropout = method == FinetuneMethod.Lora ? 0.2 : 0 },
        Training = new TrainingConfig
        {
            BatchSize = 3, GradientAccumulationSteps = 2, MaxSteps = steps, EvalInterval = 5, CheckpointInterval = 4, KeepCheckpoints = 2, SampleTokens = 4, SamplePrompts = ["Hello"], ActivationCheckpointing = true,
        },
    };
}
