using NopeGpt.Data.Tokenization;
using NopeGpt.Jobs;
using NopeGpt.Jobs.Inference;
using NopeGpt.Model;
using NopeGpt.Model.Storage;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Tests.Training;

public sealed class ExportRunTests(FineTuningStore store) : IClassFixture<FineTuningStore>
{
    [Fact]
    public async Task The_folder_has_the_model_with_its_tokenizer_under_the_runs_name()
    {
        RunFolder run = store.NewRun(new RunConfig { Kind = RunKind.Export, Name = "My model 1", Threads = 1, Export = new ExportConfig { Checkpoint = store.Base.Id } });
        Assert.Equal(ExitCode.Done, await store.RunAsync(run));
        string folder = Path.Combine(store.Store.ExportsFolder, "My-model-1");
        using (Decoder own = Checkpoint.LoadModel(store.BaseFolder), written = Checkpoint.LoadModel(folder))
        {
            foreach (((string name, Tensor one), (_, Tensor other)) in own.Parameters().Zip(written.Parameters())) Assert.True(one.equal(other).all().item<bool>(), name);
        }
        Assert.Equal(["config.json", "export.json", "model.safetensors", "tokenizer.json"], Directory.EnumerateFiles(folder).Select(Path.GetFileName).Order(StringComparer.Ordinal));
        double[] done = [.. run.Events().OfType<ProgressEvent>().Select(p => p.Fraction)];
        Assert.Equal(done.Order(), done);
        Assert.Equal((0, 1), (done[0], done[^1]));
        Assert.Single(run.Events().OfType<MetricsEvent>());
        Assert.False(Directory.Exists(run.TensorBoardPath));

        // Its own folder is no obstacle to it, and is not written again; to another run it is.
        DateTime before = Directory.GetLastWriteTimeUtc(folder);
        Assert.Equal(ExitCode.Done, await store.RunAsync(run));
        Assert.Equal(before, Directory.GetLastWriteTimeUtc(folder));
        RunFolder second = store.NewRun(run.Read().Config);
        Assert.Equal(ExitCode.BadConfiguration, await store.RunAsync(second));
        Assert.Contains($"export.out = {folder}", second.Events().OfType<EndedEvent>().Single().Reason, StringComparison.Ordinal);
    }

    [Fact]
    public async Task An_adapter_is_merged_whether_it_is_the_checkpoint_or_named_beside_its_base()
    {
        RunFolder tuned = store.NewRun(store.Small(FinetuneMethod.Lora, 4));
        Assert.Equal(ExitCode.Done, await store.RunAsync(tuned));
        string[] folders = [store["own"], store["beside"], store["half"]];
        ExportConfig[] recipes =
        [
            new() { Checkpoint = tuned.Id, Out = folders[0] },
            new() { Checkpoint = store.BaseFolder, Adapter = tuned.Id, Out = folders[1] },
            new() { Checkpoint = $"{tuned.Id}/4", Strength = 0.5, Dtype = ExportType.Bfloat16, Out = folders[2] },
        ];
        foreach (ExportConfig recipe in recipes)
        {
            RunFolder run = store.NewRun(new RunConfig { Kind = RunKind.Export, Threads = 1, Export = recipe });
            Assert.True(await store.RunAsync(run) == ExitCode.Done, run.Events().OfType<EndedEvent>().Single().Reason);
        }
        using IDisposable quiet = no_grad();
        (Decoder attached, Adapter? adapter) = CheckpointModel.Load(CheckpointOf(tuned), CPU);
        using Decoder half = Checkpoint.LoadModel(folders[2]);
        using (attached)
        using (adapter)
        {
            attached.eval();
            half.eval();
            using Tensor ids = tensor(new long[,] { { 1, 2, 3, 403 } }), expected = attached.Forward(ids);
            foreach (string folder in folders[..2])
            {
                using Decoder merged = Checkpoint.LoadModel(folder);
                merged.eval();
                using Tensor logits = merged.Forward(ids);
                Assert.True(logits.allclose(expected, 1e-4, 1e-4), folder);
                Assert.Equal(404, Tokenizer.Load(folder).VocabularySize);
            }
            using Tensor other = half.Forward(ids);
            Assert.False(other.allclose(expected, 1e-4, 1e-4));
        }
        using SafetensorsFile file = SafetensorsFile.Open(Path.Combine(folders[2], "model.safetensors"));
        Assert.All(file.Names, name => Assert.Equal(ScalarType.BFloat16, file.Info(name).Type));
    }

    [Fact]
    public async Task Everything_wrong_is_told_at_once_and_nothing_is_written()
    {
        Directory.CreateDirectory(store["taken/inside"]);
        ExportConfig recipe = new() { Checkpoint = "no-such-run", Adapter = store["no-adapter"], Layout = "gpt3", Strength = 1001, MaxShardSize = -1, Out = store["taken"] };
        Assert.Equal(
            ["export.adapter", "export.checkpoint", "export.layout", "export.max_shard_size", "export.out", "export.strength"],
            RunConfigChecks.All(new RunConfig { Kind = RunKind.Export, Export = recipe }, store.Store).Select(p => p.Field).Order(StringComparer.Ordinal));
        // What the layout has no words for, and a strength without an adapter, are seen in the model's own files.
        RunConfig wrong = new() { Kind = RunKind.Export, Export = new ExportConfig { Checkpoint = store.Base.Id, Layout = "llama", Strength = 2, Out = store["new"] } };
        Problem[] problems = [.. RunConfigChecks.All(wrong, store.Store)];
        Assert.Equal(["export.layout", "export.strength"], problems.Select(p => p.Field).Order(StringComparer.Ordinal));
        Assert.Contains("cannot express this model (", problems.Single(p => p.Field == "export.layout").Message, StringComparison.Ordinal);
        RunFolder run = store.NewRun(wrong);
        Assert.Equal(ExitCode.BadConfiguration, await store.RunAsync(run));
        Assert.Equal("inside", Path.GetFileName(Assert.Single(Directory.EnumerateFileSystemEntries(store["taken"]))));
        Assert.False(Directory.Exists(store["new"]));
        Assert.Empty(RunConfigChecks.All(wrong with { Export = wrong.Export with { Layout = "nope-gpt", Strength = 1 } }, store.Store));
        Assert.Contains(RunConfigChecks.All(new RunConfig { Kind = RunKind.Export }, store.Store), p => p.Field == "export.checkpoint");
    }

    [Fact]
    public async Task A_stop_before_it_writes_leaves_nothing_and_the_next_attempt_does_it_all()
    {
        RunFolder run = store.NewRun(new RunConfig { Kind = RunKind.Export, Threads = 1, Export = new ExportConfig { Checkpoint = store.Base.Id } });
        using (CancellationTokenSource stop = new())
        {
            Assert.Equal(ExitCode.StoppedAndSaved, await store.RunAsync(run, e =>
            {
                if (e is ProgressEvent { Fraction: > 0 }) stop.Cancel();
            }, stop.Token));
        }
        // Without a name the folder is the run's own.
        string folder = Path.Combine(store.Store.ExportsFolder, run.Id);
        Assert.False(Directory.Exists(folder));
        // What a kill in the midst of writing leaves goes with the next attempt.
        Directory.CreateDirectory(Path.Combine(store.Store.ExportsFolder, $".{run.Id}.{Guid.NewGuid():n}.tmp"));
        Assert.Equal(ExitCode.Done, await store.RunAsync(run));
        Assert.True(File.Exists(Path.Combine(folder, "model.safetensors")));
        Assert.DoesNotContain(Directory.EnumerateDirectories(store.Store.ExportsFolder), d => Path.GetFileName(d).StartsWith('.'));
    }

    private static string CheckpointOf(RunFolder run) => Checkpoint.List(run.CheckpointsPath)[0].Path;
}
