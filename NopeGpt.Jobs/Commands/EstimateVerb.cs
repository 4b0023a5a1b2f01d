using System.CommandLine;
using System.Globalization;
using System.Text.Json;
using NopeGpt.Data;
using NopeGpt.Jobs.Configuration;
using NopeGpt.Jobs.Training;
using NopeGpt.Model;

namespace NopeGpt.Jobs.Commands;

/// <summary>`nopegpt estimate`: what a pretraining run would take, from its options alone.</summary>
internal sealed class EstimateVerb : Verb
{
    private const string Summary = "What a pretraining run would take: parameters, memory, arithmetic, time and the tokens that are advised for its size. It trains nothing.";

    private readonly Option<string?> _rate = CommonOptions.Text("--matrix_rate", "X", "Floating-point operations a second that the device can do; without it the matrix product of this machine's device is measured.");
    private readonly Option<string?> _utilisation = CommonOptions.Text("--utilisation", "X", "Part of them that training makes use of.", "0.6");
    private readonly Option<string?> _root = CommonOptions.Root();
    private readonly Option<bool> _json = CommonOptions.Flag("--json", "The same as one JSON document.");
    private readonly TrainingRecipe _recipe;

    public EstimateVerb() : base("estimate", Summary) => _recipe = new(RunKind.Pretrain, Own);

    public override IReadOnlyList<Option> Options => [.. Own, .. _recipe.Options];

    private Option[] Own => [_rate, _utilisation, _root, _json];

    public override bool WriteHelp(TextWriter output)
    {
        RunHelp help = new(output);
        help.Usage(Summary, "nopegpt estimate [--dataset NAME | --vocabulary_size N] [options of `nopegpt pretrain`]");
        _recipe.WriteHelp(help, Own);
        return true;
    }

    public override Func<CancellationToken, Task<int>> Read(Arguments arguments)
    {
        RunConfig config = _recipe.Read(arguments);
        double? given = arguments.Number(_rate, 1, 1e30);
        double utilisation = arguments.Number(_utilisation, 0.001, 1) ?? 0.6;
        bool json = arguments.Flag(_json);
        long? tokens = null;
        if (config.Data.Dataset.Length > 0) (config, tokens) = WithVocabulary(arguments, config);
        else if (config.Model.VocabularySize == 0) config = config with { Model = config.Model with { VocabularySize = _recipe.ModelPreset(arguments)?.Config.VocabularySize ?? 0 } };
        foreach (Problem problem in config.Problems().Where(p => p.Field != "data.dataset")) arguments.Add(_recipe.Named(problem));
        if (config.Model.VocabularySize == 0 && config.Data.Dataset.Length == 0) arguments.Add("--vocabulary_size", "0", "takes the data set's: name one with --dataset, or give the number of tokens");
        string? library = arguments.TorchLibrary;
        return Abandonable(() =>
        {
            Estimate estimate = Estimate.Of(config, tokens, given ?? Measure(library, config), utilisation, cpu: !config.Device.StartsWith("cuda", StringComparison.Ordinal));
            if (json) Console.WriteLine(JsonSerializer.Serialize(estimate, Settings.Json));
            else Write(estimate);
            return ExitCode.Done;
        });
    }

    private (RunConfig Config, long? Tokens) WithVocabulary(Arguments arguments, RunConfig config)
    {
        try
        {
            using TokenFile file = TrainingData.Open(config.Data.Dataset, config.Data.RawTokens, arguments.Store(_root));
            return (config.Model.VocabularySize == 0 ? config with { Model = config.Model with { VocabularySize = file.VocabularySize } } : config, file.Count);
        }
        catch (Exception e) when (e is IOException or InvalidDataException or ArgumentException or UnauthorizedAccessException)
        {
            arguments.Add("--dataset", config.Data.Dataset, e is FileNotFoundException or DirectoryNotFoundException ? "there is no such data set: name one of the store, a token file, or give --vocabulary_size instead" : e.Message);
            return (config, null);
        }
    }

    private static double Measure(string? library, RunConfig config)
    {
        IReadOnlyList<TorchSharp.torch.Device> devices = ComputeDevice.StartAll(library, config.Device);
        Model.Native.TorchRuntime.SetThreads(config.Threads == 0 ? Environment.ProcessorCount : config.Threads);
        Precision precision = PrecisionChoice.For(config.Training.Precision, [.. devices.Select(ComputeUnits.Of)]).Precision;
        return devices.DistinctBy(d => d.ToString()).Sum(d => MatrixRate.Of(d, precision.Type()));
    }

    private static void Write(Estimate e)
    {
        CultureInfo plain = CultureInfo.InvariantCulture;
        string[][] lines =
        [
            ["parameters", e.Parameters.ToString("N0", plain)],
            ["width per layer", string.Create(plain, $"{e.AspectRatio:0.#} (50 to 100 are usual)")],
            ["width per query head", string.Create(plain, $"{e.HeadDimensions} (20 to 80 are usual)")],
            [e.Memory.Devices > 1 ? $"memory of each of {e.Memory.Devices} devices" : "memory",
                string.Create(plain, $"{TextTable.Bytes(e.Memory.Total)} (weights {TextTable.Bytes(e.Memory.Weights)}, gradients {TextTable.Bytes(e.Memory.Gradients)}, optimizer {TextTable.Bytes(e.Memory.Optimizer)}, activations about {TextTable.Bytes(e.Memory.Activations)})")],
            ["a checkpoint", TextTable.Bytes(e.Memory.Checkpoint)],
            ["FLOPs a token, a step, the run", string.Create(plain, $"{e.Flops.PerToken:0.###e0}, {e.Flops.PerStep:0.###e0}, {e.Flops.Run:0.###e0}")],
            ["tokens of a step", e.Tokens.PerStep.ToString("N0", plain)],
            ["tokens of the run", string.Create(plain, $"{e.Tokens.Run:N0}{(e.Tokens.Epochs is { } epochs ? $" ({epochs:0.##} times the data set)" : "")}")],
            ["tokens advised for this size", string.Create(plain, $"{e.Tokens.Advised:N0} ({e.Tokens.AdvisedSteps:N0} steps)")],
            ["time", string.Create(plain, $"about {TerminalProgress.Duration(e.Time.RunSeconds)} at {e.Time.TokensPerSecond:N0} tokens/s ({100 * e.Time.Utilisation:0} % of {e.Time.MatrixRate / 1e9:N0} GFLOP/s)")],
        ];
        foreach (string[] line in lines) Console.WriteLine($"{line[0],-32}{line[1]}");
    }
}
