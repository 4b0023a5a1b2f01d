using System.CommandLine;
using System.Globalization;
using System.Text.Json;
using NopeGpt.Jobs.Inference;
using NopeGpt.Jobs.Inference.Http;
using NopeGpt.Model;
using NopeGpt.Model.Native;

namespace NopeGpt.Jobs.Commands;

/// <summary>`nopegpt beam-search`: the likeliest continuations of a text.</summary>
internal sealed class BeamSearchVerb() : Verb("beam-search", "Find the likeliest continuations of a text with a trained model, best score first.")
{
    private static readonly BeamSearchOptions Defaults = new();

    private readonly Option<string?> _checkpoint = CheckpointOption.Create();
    private readonly Option<string?> _adapter = WritingModel.AdapterOption(), _tiktoken = CommonOptions.Tiktoken();
    private readonly Option<string?> _prompt = CommonOptions.Text("--prompt", "TEXT", "The text to continue; \"\" begins a new one.", required: true);
    private readonly Option<string?> _candidates = CommonOptions.Text("--num_candidates", "N", "Continuations to find.", Shown(Defaults.NumCandidates));
    private readonly Option<string?> _width = CommonOptions.Text("--beam_width", "N", "Unfinished texts that are followed side by side; more find better ones and take longer.", Shown(Defaults.BeamWidth));
    private readonly Option<string?> _penalty = CommonOptions.Text("--length_penalty", "X", "The score is log-probability / tokens^X: 0 compares whole texts, 1 the mean of their tokens, more favours long ones.", "1.0");
    private readonly Option<string?> _maxTokens = CommonOptions.Text("--max_tokens", "N", "Tokens of a continuation at most.", Shown(GenerationDefaults.MaxTokens));
    private readonly Option<string?> _context = CommonOptions.Text("--context_length", "N", "Tokens that the model sees at once; the oldest are dropped. Default: what it was trained with, else 1024.");
    private readonly Option<string?> _seed = CommonOptions.Text("--seed", "N", "Taken as by the other commands, and without effect: nothing is drawn.");
    private readonly Option<string?> _root = CommonOptions.Root(), _device = CommonOptions.Device(), _threads = CommonOptions.ReplyThreads();
    private readonly Option<bool> _json = CommonOptions.Flag("--json", "Print one JSON document on stdout at the end: candidates, each with tokens, text, log_probability, score.");

    public override IReadOnlyList<Option> Options => [_checkpoint, _adapter, _prompt, _candidates, _width, _penalty, _maxTokens, _context, _seed, _root, _tiktoken, _device, _threads, _json];

    public override Func<CancellationToken, Task<int>> Read(Arguments arguments)
    {
        BeamSearchOptions options = new()
        {
            NumCandidates = arguments.Whole(_candidates, int.MinValue, int.MaxValue) ?? Defaults.NumCandidates,
            BeamWidth = arguments.Whole(_width, int.MinValue, int.MaxValue) ?? Defaults.BeamWidth,
            LengthPenalty = arguments.Number(_penalty, "from 0 to 10") ?? Defaults.LengthPenalty,
            MaxTokens = arguments.Whole(_maxTokens, 1, CompletionRequest.MostTokens) ?? GenerationDefaults.MaxTokens,
        };
        foreach (Problem problem in options.Problems()) arguments.Add(problem with { Field = "--" + problem.Field });
        int? context = arguments.Whole(_context, 1, CompletionRequest.LongestContext);
        arguments.Seed(_seed);
        (WritingModel model, string text) = (WritingModel.Read(arguments, _checkpoint, _adapter, _tiktoken, _root), arguments.Text(_prompt) ?? "");
        (string device, int threads, bool json) = (arguments.Device(_device), arguments.Whole(_threads, 0, 1024) ?? 0, arguments.Flag(_json));
        return cancel => Task.FromResult(Run(model, text, options, context, json, ComputeDevice.Start(arguments.TorchLibrary, device, threads), cancel));
    }

    private static int Run(WritingModel source, string text, BeamSearchOptions options, int? context, bool json, ComputeDevice device, CancellationToken cancel)
    {
        using LoadedModel model = source.Load(device);
        TorchRuntime.SetThreads(model.Threads);
        options = options with { ContextLength = model.Context(context) };
        PromptTokens prompt = PromptTokens.Continue(model.Tokenizer, text, options.ContextLength);
        IReadOnlyList<BeamCandidate> found = BeamSearch.Run(model.Decoder, prompt.Tokens, options, prompt.StopIds, model.Tokenizer.VocabularySize, cancel);
        var candidates = found.Select(c => new { tokens = c.Tokens, text = model.Tokenizer.Decode(c.Tokens), log_probability = c.LogProbability, score = c.Score }).ToArray();
        if (json)
        {
            Console.WriteLine(JsonSerializer.Serialize(new { candidates }, ReplyWriter.Json));
            return ExitCode.Done;
        }
        for (int i = 0; i < candidates.Length; i++)
        {
            var candidate = candidates[i];
            Console.WriteLine(string.Create(CultureInfo.InvariantCulture,
                $"{i + 1}. score {candidate.score:0.0000}, log-probability {candidate.log_probability:0.0000}, {candidate.tokens.Count} tokens\n{candidate.text}\n"));
        }
        return ExitCode.Done;
    }

    private static string Shown(int value) => value.ToString(CultureInfo.InvariantCulture);
}
