using System.Diagnostics;
using System.Security.Cryptography;
using System.Text.Json;
using NopeGpt.Data.Chat;
using NopeGpt.Data.Tokenization;
using NopeGpt.Jobs;
using NopeGpt.Jobs.Inference;
using NopeGpt.Jobs.Training;
using NopeGpt.Model;
using NopeGpt.Model.Storage;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Tests.Training;

public sealed class FineTuningTests(FineTuningStore store) : IClassFixture<FineTuningStore>
{
    private static readonly string[] AdapterFiles = ["adapter.json", "adapter.safetensors", "optimizer.safetensors", "tokenizer.json"];
    private static readonly string[] ModelFiles = ["config.json", "model.safetensors", "optimizer.safetensors", "tokenizer.json"];

    [Theory]
    [InlineData(FinetuneMethod.Lora, false)]
    [InlineData(FinetuneMethod.Lora, true)]
    [InlineData(FinetuneMethod.Full, false)]
    [InlineData(FinetuneMethod.Full, true)]
    public async Task Stopped_killed_and_resumed_equals_straight_through(FinetuneMethod method, bool packing)
    {
        RunConfig config = store.Small(method, 14);
        config = config with { Finetune = config.Finetune with { Packing = packing, DatasetSubsets = [$"{FineTuningStore.Talks},{FineTuningStore.More}"] } };
        RunFolder straight = store.NewRun(config), broken = store.NewRun(config);
        Assert.Equal(ExitCode.Done, await store.RunAsync(straight));

        Assert.Equal(ExitCode.StoppedAndSaved, await EndAtAsync(broken, 3, StopRequest.Save));
        Assert.InRange(Checkpoint.List(broken.CheckpointsPath)[0].Step, 3, 4);
        // A kill: nothing is saved, and what was done since the last checkpoint is done again.
        Assert.Equal(ExitCode.StoppedAndSaved, await EndAtAsync(broken, 10, StopRequest.Kill));
        Assert.Equal(8, Checkpoint.List(broken.CheckpointsPath)[0].Step);
        broken.RequestStop(StopRequest.None);
        Assert.Equal(ExitCode.Done, await store.RunAsync(broken));

        Assert.Equal(Hashes(straight, method), Hashes(broken, method));
        Assert.Equal(Evaluations(straight), Evaluations(broken).DistinctBy(e => e.Step));
        Assert.Equal([0, 3, 8], broken.Events().OfType<StartedEvent>().Select(s => s.FromStep == 4 ? 3 : s.FromStep));
    }

    [Fact]
    public async Task A_process_that_is_killed_goes_on_from_its_last_checkpoint_bit_for_bit()
    {
        RunConfig config = store.Small(FinetuneMethod.Lora, 60);
        RunFolder straight = store.NewRun(config), broken = store.NewRun(config);
        Assert.Equal(ExitCode.Done, await store.RunAsync(straight));
        using (Process process = Process.Start(new ProcessStartInfo(Path.Combine(AppContext.BaseDirectory, "nopegpt"), ["train", broken.Path, "--root", store.Store.Root, "--detached"]))!)
        {
            using CancellationTokenSource patience = new(TimeSpan.FromSeconds(60));
            while (!broken.Events().OfType<MetricsEvent>().Any(m => m.Step >= 9)) await Task.Delay(5, patience.Token);
            process.Kill();
            await process.WaitForExitAsync(patience.Token);
        }
        Assert.Equal(ExitCode.Done, await store.RunAsync(broken));
        Assert.InRange(broken.Events().OfType<StartedEvent>().Last().FromStep, 4, 60);
        Assert.Equal(Hashes(straight, FinetuneMethod.Lora), Hashes(broken, FinetuneMethod.Lora));
    }

    [Theory]
    [InlineData(FinetuneMethod.Lora)]
    [InlineData(FinetuneMethod.Full)]
    public async Task The_loss_falls_and_the_base_stays_as_it_is(FinetuneMethod method)
    {
        string before = Hash(Path.Combine(store.BaseFolder, "model.safetensors"));
        RunConfig config = store.Small(method, 40);
        RunFolder run = store.NewRun(config with { Optimizer = config.Optimizer with { LearningRate = 1e-2 } });
        Assert.Equal(ExitCode.Done, await store.RunAsync(run));
        double[] losses = [.. run.Events().OfType<MetricsEvent>().Where(m => m.Values.ContainsKey("train/loss")).Select(m => m.Values["train/loss"])];
        Assert.Equal(40, losses.Length);
        Assert.True(losses.TakeLast(5).Average() < losses.Take(5).Average() - 0.5, $"from {losses[0]} to {losses[^1]}");
        (long Step, double Loss)[] measured = Evaluations(run);
        Assert.True(measured[^1].Loss < measured[0].Loss, $"{measured[0]} to {measured[^1]}");
        Assert.Equal(before, Hash(Path.Combine(store.BaseFolder, "model.safetensors")));
        Assert.NotEmpty(run.Events().OfType<SampleEvent>());
        Assert.All(run.Events().OfType<MetricsEvent>().Where(m => m.Values.ContainsKey("eval/loss")), m => Assert.True(double.IsFinite(m.Values["eval/bits_per_byte"])));
        RunConfig frozen = run.Read().Config;
        Assert.Equal(store.BaseFolder, frozen.Finetune.BaseCheckpointPath);
        Assert.Equal(404, frozen.Model.VocabularySize);
    }

    [Theory]
    [InlineData(FinetuneMethod.Lora, false)]
    [InlineData(FinetuneMethod.Lora, true)]
    [InlineData(FinetuneMethod.Full, false)]
    public async Task Its_checkpoint_is_a_model_that_knows_the_markers_and_gives_the_loss_that_was_measured(FinetuneMethod method, bool frozen)
    {
        RunConfig config = store.Small(method, 6);
        config = config with { Finetune = config.Finetune with { FreezeTokenEmbeddings = frozen } };
        RunFolder run = store.NewRun(config);
        Assert.Equal(ExitCode.Done, await store.RunAsync(run));
        string folder = Assert.Single(new ModelCatalog(store.Store).Resolve($"{run.Id}/6"));
        ComputeDevice device = ComputeDevice.Start(null, "cpu", 1);
        using LoadedModel model = LoadedModel.Load(folder, device, store.Store.TokenizerPlaces);
        Assert.Equal(404, model.Decoder.AdaptedConfig.VocabularySize);
        Assert.NotNull(ChatFormat.Find(model.Tokenizer));
        Assert.Equal(Evaluations(run)[^1].Loss, Loss(model.Decoder, config), 1e-6);
        if (method == FinetuneMethod.Full) return;

        // As the adapter of its base, which `generate --lora_path` names, it is the same.
        using LoadedModel named = LoadedModel.Load(store.BaseFolder, device, store.Store.TokenizerPlaces, folder);
        Assert.Equal(Loss(model.Decoder, config), Loss(named.Decoder, config));
        using SafetensorsFile state = SafetensorsFile.Open(Path.Combine(folder, "optimizer.safetensors"));
        Assert.Equal(frozen, !state.Names.Any(n => n.EndsWith("token_embeddings.weight", StringComparison.Ordinal)));
        Assert.Equal(frozen, state.Names.All(n => n.Contains("lora_", StringComparison.Ordinal) || n == "step"));
        Assert.False(File.Exists(Path.Combine(folder, "model.safetensors")));
        long bytes = new FileInfo(Path.Combine(folder, "adapter.safetensors")).Length;
        Assert.InRange(bytes, 1, 4 * config.Finetune.Lora().CountTrained(named.Decoder.Config, 404).Products + (4 * 404 * 32) + 20_000);
    }

    [Fact]
    public async Task Epochs_give_the_length_and_a_number_of_tokens_ends_it_earlier()
    {
        RunConfig config = store.Small(FinetuneMethod.Lora, 0);
        RunFolder whole = store.NewRun(config with { Finetune = config.Finetune with { NumEpochs = 2 } });
        Assert.Equal(ExitCode.Done, await store.RunAsync(whole));
        // 48 conversations without the 6 held out, twice, 6 in a step.
        Assert.Equal((14, 14), (whole.Events().OfType<MetricsEvent>().Last().Step, whole.Read().Config.Training.MaxSteps));
        double[] tokens = [.. whole.Events().OfType<MetricsEvent>().Where(m => m.Values.ContainsKey("train/tokens")).Select(m => m.Values["train/tokens"])];
        Assert.Equal(tokens[6] * 2, tokens[13]);
        RunFolder shorter = store.NewRun(config with { Training = config.Training with { MaxTokens = (long)tokens[2] } });
        Assert.Equal(ExitCode.Done, await store.RunAsync(shorter));
        Assert.Equal(3, shorter.Events().OfType<MetricsEvent>().Last().Step);
    }

    [Fact]
    public async Task A_base_that_changed_and_one_that_is_gone_are_told_when_a_run_goes_on()
    {
        string own = store["own-base"];
        Copy(store.BaseFolder, own);
        File.Delete(Path.Combine(own, "trainer.json"));
        RunConfig config = store.Small(FinetuneMethod.Lora, 12);
        RunFolder run = store.NewRun(config with { Finetune = config.Finetune with { BaseCheckpointPath = own } });
        Assert.Equal(ExitCode.StoppedAndSaved, await EndAtAsync(run, 3, StopRequest.Save));
        using (Decoder other = new(config.Model with { VocabularySize = 400, EmbeddingDimensions = 32, NumQHeads = 4, NumKvHeads = 2, NumDecoderLayers = 2, Dropout = 0.1 }, 77))
            Checkpoint.SaveModel(store["other"], other);
        File.Copy(Path.Combine(store["other"], "model.safetensors"), Path.Combine(own, "model.safetensors"), overwrite: true);
        Assert.Equal(ExitCode.BadConfiguration, await store.RunAsync(run));
        Assert.Contains("use the base that it was trained on", run.Events().OfType<EndedEvent>().Last().Reason, StringComparison.Ordinal);
        Directory.Delete(own, recursive: true);
        Assert.Equal(ExitCode.BadConfiguration, await store.RunAsync(run));
        Assert.Contains($"finetune.base_checkpoint_path = {own}", run.Events().OfType<EndedEvent>().Last().Reason, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_damaged_newest_adapter_is_passed_over()
    {
        RunFolder run = store.NewRun(store.Small(FinetuneMethod.Lora, 8));
        Assert.Equal(ExitCode.Done, await store.RunAsync(run));
        string[] expected = Hashes(run, FinetuneMethod.Lora);
        string file = Path.Combine(Checkpoint.List(run.CheckpointsPath)[0].Path, "adapter.safetensors");
        byte[] bytes = await File.ReadAllBytesAsync(file);
        bytes[^3] ^= 1;
        await File.WriteAllBytesAsync(file, bytes);
        Assert.Equal(ExitCode.Done, await store.RunAsync(run));
        Assert.Contains(run.Events().OfType<WarningEvent>(), w => w.Message.Contains("adapter.safetensors", StringComparison.Ordinal));
        Assert.Equal(4, run.Events().OfType<StartedEvent>().Last().FromStep);
        Assert.Equal(expected, Hashes(run, FinetuneMethod.Lora));
    }

    [Fact]
    public async Task Everything_wrong_is_told_at_once_with_its_cure()
    {
        await store.PrepareAsync("foreign", Enumerable.Range(0, 20).Select(i => FineTuningStore.Talk($"zebra {i}", "quartz and xylophone")), "");
        await store.PrepareAsync("questions", Enumerable.Range(0, 9).Select(i => (object)new { messages = new object[] { new { role = "user", content = $"Why {i}?" } } }).Append(FineTuningStore.Talk("Why?", "So.")), "small");
        RunConfig sound = store.Small(FinetuneMethod.Lora, 4);
        Assert.Empty(RunConfigChecks.All(sound, store.Store));
        FinetuneConfig finetune = sound.Finetune;

        Expect(finetune with { BaseCheckpointPath = "", DatasetSubsets = [], LoraRank = 0, LoraAlpha = 0, LoraDropout = 1, MaxTokensPerSample = 2 },
            ("finetune.lora_rank", "from 1 to"), ("finetune.lora_alpha", "must lie"), ("finetune.lora_dropout", "must lie"), ("finetune.max_tokens_per_sample", "must lie"),
            ("finetune.base_checkpoint_path", "name the model"), ("finetune.dataset_subsets", "name one or more"));
        Expect(finetune with { BaseCheckpointPath = "no-such-run", DatasetSubsets = ["nothing", "small"] },
            ("finetune.dataset_subsets", "the store has foreign, more, questions, talks"), ("finetune.dataset_subsets", "not conversations"), ("finetune.base_checkpoint_path", "there is no model 'no-such-run'"));
        Expect(finetune with { DatasetSubsets = ["foreign"] }, ("finetune.base_checkpoint_path", "another tokenizer"));
        Expect(finetune with { DatasetSubsets = ["talks", "foreign"] }, ("finetune.dataset_subsets", "another tokenizer"));
        Expect(finetune with { DatasetSubsets = ["talks, talks"] }, ("finetune.dataset_subsets", "more than once"));
        Expect(finetune with { MaxTokensPerSample = 8 }, ("finetune.dataset_subsets", "ReplyCut"));
        Expect(finetune with { FilterLongSamples = true, MaxTokensPerSample = 8 }, ("finetune.dataset_subsets", "TooLong"));
        Expect(finetune with { DatasetSubsets = ["more"] }, sound.Data with { NumEvalSamples = 12 }, ("data.num_eval_samples", "12 held out"));
        Expect(finetune with { Method = FinetuneMethod.Full, FreezeTokenEmbeddings = true }, ("finetune.lora_rank", "method full"), ("finetune.lora_dropout", "method full"), ("finetune.freeze_token_embeddings", "method full"));

        RunFolder adapter = store.NewRun(sound);
        Assert.Equal(ExitCode.Done, await store.RunAsync(adapter));
        Expect(finetune with { BaseCheckpointPath = adapter.Id }, ("finetune.base_checkpoint_path", "nopegpt merge"));
        RunFolder refused = store.NewRun(sound with { Finetune = finetune with { BaseCheckpointPath = "nowhere/at/all" } });
        Assert.Equal(ExitCode.BadConfiguration, await store.RunAsync(refused));
        Assert.Empty(refused.Events().OfType<StartedEvent>());

        void Expect(FinetuneConfig wrong, params object[] rest)
        {
            DataConfig data = rest is [DataConfig own, ..] ? own : sound.Data;
            (string, string)[] expected = [.. rest.OfType<(string Field, string)>().OrderBy(e => e.Field, StringComparer.Ordinal)];
            Problem[] problems = [.. RunConfigChecks.All(sound with { Finetune = wrong, Data = data }, store.Store).OrderBy(p => p.Field, StringComparer.Ordinal)];
            Assert.True(expected.Length == problems.Length && expected.Zip(problems).All(p => p.First.Item1 == p.Second.Field && p.Second.Message.Contains(p.First.Item2, StringComparison.Ordinal)), string.Join('\n', problems.AsEnumerable()));
        }
    }

    [Fact]
    public void A_kind_in_JSON_brings_its_defaults()
    {
        List<Problem> problems = [];
        using JsonDocument json = JsonDocument.Parse("""{"kind": "finetune", "finetune": {"method": "full"}, "training": {"batch_size": 2}}""");
        RunConfig config = Jobs.Configuration.Settings.Bind(json.RootElement, problems);
        Assert.Empty(problems);
        RunConfig usual = RunConfig.For(RunKind.Finetune);
        Assert.Equal((usual.Optimizer, FinetuneMethod.Full, 2), (config.Optimizer, config.Finetune.Method, config.Training.BatchSize));
        Assert.Equal(usual.Training.SamplePrompts, config.Training.SamplePrompts);
        Assert.NotEqual(new RunConfig().Optimizer, config.Optimizer);
    }

    private double Loss(Decoder model, RunConfig config)
    {
        Tokenizer tokenizer = Tokenizer.Load(Store.TokenizerBeside(store.Store.DatasetTokens(FineTuningStore.Talks))).WithChatMarkers();
        using ChatFile file = ChatFile.Open(store.Store.DatasetTokens(FineTuningStore.Talks));
        ChatBatchSource source = new(file, ChatFormat.For(tokenizer).PaddingId, new ChatBatchOptions { Sample = new() { MaxTokens = 80 }, Seed = config.Seed, HoldoutSamples = 6 });
        model.eval();
        using IDisposable quiet = no_grad();
        double sum = 0;
        long count = 0;
        // One conversation after the other: no padding, no neighbours.
        foreach (Data.Batch batch in source.Holdout())
        {
            using DisposeScope scope = NewDisposeScope();
            sum += model.LossPerToken(tensor(batch.Tokens, [1, batch.Length]), tensor(batch.Targets, [1, batch.Length]), null).sum(ScalarType.Float64).item<double>();
            count += batch.Targets.Count(t => t != ChatFormat.IgnoredLabel);
        }
        return sum / count;
    }

    private async Task<int> EndAtAsync(RunFolder run, long step, StopRequest request)
    {
        using CancellationTokenSource stop = new();
        return await store.RunAsync(run, e =>
        {
            if (e is not MetricsEvent m || m.Step < step || stop.IsCancellationRequested) return;
            run.RequestStop(request);
            stop.Cancel();
        }, stop.Token);
    }

    private static (long Step, double Loss)[] Evaluations(RunFolder run) =>
        [.. run.Events().OfType<MetricsEvent>().Where(m => m.Values.ContainsKey("eval/loss")).Select(m => (m.Step, m.Values["eval/loss"]))];

    private static string[] Hashes(RunFolder run, FinetuneMethod method)
    {
        string folder = Checkpoint.List(run.CheckpointsPath)[0].Path;
        return [.. (method == FinetuneMethod.Lora ? AdapterFiles : ModelFiles).Select(name => $"{name} {Hash(Path.Combine(folder, name))}")];
    }

    private static string Hash(string file) => Convert.ToHexString(SHA256.HashData(File.ReadAllBytes(file)));

    private static void Copy(string from, string to)
    {
        Directory.CreateDirectory(to);
        foreach (string file in Directory.EnumerateFiles(from)) File.Copy(file, Path.Combine(to, Path.GetFileName(file)));
    }
}
