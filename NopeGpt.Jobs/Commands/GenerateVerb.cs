using System.CommandLine;
using System.Globalization;
using System.Text;
using System.Text.Json;
using NopeGpt.Jobs.Inference;
using NopeGpt.Jobs.Inference.Http;
using NopeGpt.Model;

namespace NopeGpt.Jobs.Commands;

/// <summary>`nopegpt generate`: continues a text.</summary>
internal sealed class GenerateVerb() : Verb("generate", "Continue a text with a trained model; the continuation comes on stdout as it is written.")
{
    private const int MostAlternatives = 1000;

    private static readonly SamplingOptions Defaults = new();

    private readonly Option<string?> _checkpoint = CheckpointOption.Create();
    private readonly Option<string?> _prompt = CommonOptions.Text("--prompt", "TEXT", "The text to continue; \"\" begins a new one.", required: true);
    private readonly Option<string?> _maxTokens = CommonOptions.Text("--max_tokens", "N", "Tokens to write at most.", Shown(GenerationDefaults.MaxTokens));
    private readonly Option<string?> _temperature = CommonOptions.Text("--temperature", "X", "Below 1 is safer, above 1 is wilder, 0 always takes the likeliest token.", Shown(Defaults.Temperature));
    private readonly Option<string?> _topK = CommonOptions.Text("--top_k", "N", "Keep only this many of the likeliest tokens; 0 keeps all.", Shown(Defaults.TopK));
    private readonly Option<string?> _topP = CommonOptions.Text("--top_p", "P", "Keep the likeliest tokens whose probabilities reach this sum; 1 keeps all.", Shown(Defaults.TopP));
    private readonly Option<string?> _minP = CommonOptions.Text("--min_p", "P", "Keep only tokens with at least this share of the likeliest one's probability; 0 is off.", Shown(Defaults.MinP));
    private readonly Option<string?> _repeatPenalty = CommonOptions.Text("--repeat_penalty", "X", "From 0 (off) to 1: how much less likely a token gets for each time it was written in the window.", Shown(Defaults.RepeatPenalty));
    private readonly Option<string?> _repeatWindow = CommonOptions.Text("--repeat_window", "N", "Tokens that the repeat penalty looks back at.", Shown(Defaults.RepeatWindow));
    private readonly Option<string?> _alternatives = CommonOptions.Text("--alternatives", "N", "With --json: for each token the N likeliest of those that it was drawn from, with their probabilities.", "0");
    private readonly Option<string?> _context = CommonOptions.Text("--context_length", "N", "Tokens that the model sees at once; the oldest are dropped. Default: what it was trained with, else 1024.");
    private readonly Option<string?> _adapter = WritingModel.AdapterOption(), _tiktoken = CommonOptions.Tiktoken();
    private readonly Option<string?> _seed = CommonOptions.Seed(), _root = CommonOptions.Root(), _device = CommonOptions.Device(), _threads = CommonOptions.ReplyThreads();
    private readonly Option<bool> _json = CommonOptions.Flag("--json", "Print one JSON document on stdout at the end: tokens, text, probabilities, seed, finish_reason; with --alternatives also alternatives.");

    public override IReadOnlyList<Option> Options =>
        [_checkpoint, _adapter, _prompt, _maxTokens, _temperature, _topK, _topP, _minP, _repeatPenalty, _repeatWindow, _alternatives, _seed, _context, _root, _tiktoken, _device, _threads, _json];

    private sealed record Work(WritingModel Model, string Prompt, SamplingOptions Sampling, ulong Seed, int MaxTokens, int? Context, int Alternatives, bool Json);

    public override Func<CancellationToken, Task<int>> Read(Arguments arguments)
    {
        SamplingOptions sampling = new()
        {
            Temperature = arguments.Number(_temperature, "from 0 to 100") ?? Defaults.Temperature,
            TopK = arguments.Whole(_topK, int.MinValue, int.MaxValue) ?? Defaults.TopK,
            TopP = arguments.Number(_topP, "above 0 and up to 1") ?? Defaults.TopP,
            MinP = arguments.Number(_minP, "from 0 to 1") ?? Defaults.MinP,
            RepeatPenalty = arguments.Number(_repeatPenalty, "from 0 to 1") ?? Defaults.RepeatPenalty,
            RepeatWindow = arguments.Whole(_repeatWindow, int.MinValue, int.MaxValue) ?? Defaults.RepeatWindow,
        };
        foreach (Problem problem in sampling.Problems()) arguments.Add(problem with { Field = "--" + problem.Field });
        int alternatives = arguments.Whole(_alternatives, 0, MostAlternatives) ?? 0;
        if (alternatives > 0 && !arguments.Flag(_json)) arguments.Add(_alternatives.Name, Shown(alternatives), "alternatives are printed with --json only: add it");
        Work work = new(WritingModel.Read(arguments, _checkpoint, _adapter, _tiktoken, _root), arguments.Text(_prompt) ?? "", sampling, arguments.Seed(_seed) ?? Generation.NewSeed(),
            arguments.Whole(_maxTokens, 1, CompletionRequest.MostTokens) ?? GenerationDefaults.MaxTokens,
            arguments.Whole(_context, 1, CompletionRequest.LongestContext), alternatives, arguments.Flag(_json));
        (string device, int threads) = (arguments.Device(_device), arguments.Whole(_threads, 0, 1024) ?? 0);
        return cancel => RunAsync(work, arguments.TorchLibrary, device, threads, cancel);
    }

    private static async Task<int> RunAsync(Work work, string? torchLibrary, string deviceName, int threads, CancellationToken cancel)
    {
        ComputeDevice device = ComputeDevice.Start(torchLibrary, deviceName, threads);
        using LoadedModel model = work.Model.Load(device);
        using InferenceLane lane = new();
        int context = model.Context(work.Context);
        PromptTokens prompt = PromptTokens.Continue(model.Tokenizer, work.Prompt, context);
        GenerationRequest request = new(prompt.Tokens, work.Sampling, work.Seed, work.MaxTokens, prompt.StopIds, [], context, work.Alternatives);
        StringBuilder text = new();
        List<SampledToken> tokens = [];
        GenerationClock clock = new();
        FinishReason finish = FinishReason.Length;
        try
        {
            await foreach (GenerationPiece piece in Generation.RunAsync(model, lane, request, cancel))
            {
                clock.Count(piece.Tokens);
                if (piece.Token is { } token) tokens.Add(token);
                if (piece.Finish is { } reason) finish = reason;
                text.Append(piece.Text);
                if (work.Json || piece.Text.Length == 0) continue;
                await Console.Out.WriteAsync(piece.Text);
                await Console.Out.FlushAsync(CancellationToken.None);
            }
        }
        finally
        {
            // Also after Ctrl+C: what follows, the shell's prompt for one, begins on a line of its own.
            if (!work.Json) await Console.Out.WriteLineAsync();
        }
        if (work.Json)
        {
            Dictionary<string, object> json = new()
            {
                ["tokens"] = tokens.Select(t => t.Id), ["text"] = text.ToString(), ["probabilities"] = tokens.Select(t => t.Probability), ["seed"] = work.Seed, ["finish_reason"] = finish,
            };
            if (work.Alternatives > 0)
                json["alternatives"] = tokens.Select(t => t.Alternatives.Select(a => new { token = a.Id, text = TokenScores.Text(model.Tokenizer, a.Id), probability = a.Probability }));
            Console.WriteLine(JsonSerializer.Serialize(json, ReplyWriter.Json));
        }
        await Console.Error.WriteLineAsync(string.Create(CultureInfo.InvariantCulture, $"{tokens.Count} tokens, {clock.TokensPerSecond:0} tokens/s, seed {work.Seed}"));
        return ExitCode.Done;
    }

    private static string Shown(IFormattable value) => value.ToString(null, CultureInfo.InvariantCulture);
}
