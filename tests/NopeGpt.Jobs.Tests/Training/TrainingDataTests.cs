using System.Runtime.InteropServices;
using NopeGpt.Data;
using NopeGpt.Jobs;
using NopeGpt.Jobs.Training;
using NopeGpt.Model;

namespace NopeGpt.Tests.Training;

public sealed class TrainingDataTests(PreparedStore prepared) : IClassFixture<PreparedStore>
{
    private readonly RunConfig small = PreparedStore.Small(8) with { Training = PreparedStore.Small(8).Training with { EvalInterval = 0, SampleTokens = 0 } };

    private Store Store => prepared.Store;

    [Fact]
    public async Task A_raw_file_trains_exactly_as_the_token_file_with_the_same_ids()
    {
        using TemporaryFolder folder = new();
        string raw = Raw(folder);
        Assert.Equal(await LossesAsync(small), await LossesAsync(small with { Data = small.Data with { Dataset = raw, RawTokens = true } }));
    }

    [Fact]
    public async Task A_mixture_and_windows_within_documents_train_and_go_on_as_straight_through()
    {
        using TemporaryFolder folder = new();
        string raw = Raw(folder);
        RunConfig mixed = small with { Data = small.Data with { Mixture = [$"{raw}=0.5"], RawTokens = true, Packed = false } };
        double[] straight = await LossesAsync(mixed);
        Assert.Equal(8, straight.Length);
        Assert.NotEqual(straight, await LossesAsync(small));
        RunFolder run = prepared.NewRun(mixed);
        using CancellationTokenSource stop = new();
        Assert.Equal(ExitCode.StoppedAndSaved, await RunAsync(run, e =>
        {
            if (e is MetricsEvent { Step: 3 }) stop.Cancel();
        }, stop.Token));
        Assert.Equal(ExitCode.Done, await RunAsync(run));
        Assert.Equal(straight, Losses(run));
    }

    [Fact]
    public async Task Each_data_set_of_a_mixture_is_measured_on_what_it_held_out()
    {
        using TemporaryFolder folder = new();
        RunConfig mixed = small with { Data = small.Data with { Mixture = [$"{Raw(folder)}=1"], RawTokens = true } };
        RunFolder trained = prepared.NewRun(mixed);
        Assert.Equal(ExitCode.Done, await RunAsync(trained));
        RunFolder measured = prepared.NewRun(new RunConfig { Kind = RunKind.Evaluate, Data = new DataConfig { Dataset = "small" }, Evaluate = new EvaluateConfig { Checkpoint = trained.Id, MaxTokens = 1 } });
        Assert.Equal(ExitCode.Done, await RunAsync(measured));
        Assert.True(measured.Events().OfType<MetricsEvent>().Single().Values["eval/loss"] > 0);
    }

    [Theory]
    [InlineData("nowhere=1", "data.mixture", "does not exist")]
    [InlineData("small", "data.mixture", "NAME=WEIGHT")]
    [InlineData("small=-1", "data.mixture", "NAME=WEIGHT")]
    public void A_wrong_mixture_is_named_with_its_cure(string entry, string field, string reason)
    {
        Problem problem = Assert.Single(RunConfigChecks.All(small with { Data = small.Data with { Mixture = [entry] } }, Store));
        Assert.Equal(field, problem.Field);
        Assert.Contains(reason, problem.ToString(), StringComparison.Ordinal);
    }

    [Fact]
    public void A_raw_file_without_its_tokenizer_or_of_an_odd_length_is_named()
    {
        using TemporaryFolder folder = new();
        File.WriteAllBytes(folder["train.bin"], new byte[1001]);
        RunConfig raw = small with { Data = small.Data with { Dataset = folder["train.bin"], RawTokens = true } };
        Assert.Contains("put there the tokenizer.json", Assert.Single(RunConfigChecks.All(raw, Store)).ToString(), StringComparison.Ordinal);
        File.Copy(Path.Combine(Store.DatasetFolder("small"), "tokenizer.json"), folder["tokenizer.json"]);
        Assert.Contains("1001 bytes, an odd number", Assert.Single(RunConfigChecks.All(raw, Store)).ToString(), StringComparison.Ordinal);
        Assert.Contains("not a token file", Assert.Single(RunConfigChecks.All(raw with { Data = raw.Data with { RawTokens = false } }, Store)).ToString(), StringComparison.Ordinal);
    }

    /// <summary>The ids of the prepared data set as nanoGPT has them.</summary>
    private string Raw(TemporaryFolder folder)
    {
        using TokenFile file = TokenFile.Open(Store.DatasetTokens("small"));
        int[] ids = new int[file.Count];
        file.Read(0, ids);
        File.WriteAllBytes(folder["train.bin"], MemoryMarshal.AsBytes(Array.ConvertAll(ids, id => (ushort)id).AsSpan()));
        File.Copy(Path.Combine(Store.DatasetFolder("small"), "tokenizer.json"), folder["tokenizer.json"]);
        return folder["train.bin"];
    }

    private async Task<double[]> LossesAsync(RunConfig config)
    {
        RunFolder run = prepared.NewRun(config);
        Assert.Equal(ExitCode.Done, await RunAsync(run));
        return Losses(run);
    }

    private static double[] Losses(RunFolder run) => [.. run.Events().OfType<MetricsEvent>().Where(m => m.Values.ContainsKey("train/loss")).Select(m => m.Values["train/loss"])];

    private Task<int> RunAsync(RunFolder run, Action<TrainingEvent>? watch = null, CancellationToken stop = default) => TrainerProcessMain.RunAsync(run.Path, Store, false, null, stop, watch);
}
