using System.CommandLine;
using System.Diagnostics;
using System.Globalization;
using System.Text.Json;
using NopeGpt.Data.Documents;
using NopeGpt.Data.Tokenization;
using NopeGpt.Jobs.Inference.Http;

namespace NopeGpt.Jobs.Commands;

/// <summary>`nopegpt tokenizer train`: a tokenizer of one's own.</summary>
internal sealed class TokenizerTrainVerb() : Verb("train", "Train a byte-level BPE tokenizer on text and write its tokenizer.json, which Hugging Face's tokenizers read too.")
{
    /// <summary>The part of the progress in which words are counted; in the rest pairs merge.</summary>
    private const double Counting = 0.8;

    private const int LargestVocabulary = 1 << 24;

    private readonly TextInputOptions _input = new();
    private readonly Option<string?> _size = CommonOptions.Text("--vocabulary_size", "N", "Ids, special tokens and the 256 bytes among them.", required: true);
    private readonly Option<string?> _out = OutputFolder.Create("New folder for tokenizer.json. A folder in the storage root's tokenizers makes it known by its name.");
    private readonly Option<string?> _specials = CommonOptions.Text("--special_tokens", "A,B", $"Special tokens, which get the first ids; {Tokenizer.EndOfText} comes before them if it is not among them.", Tokenizer.EndOfText);
    private readonly Option<string?> _minimum = CommonOptions.Text("--minimum_frequency", "N", "A pair of tokens that occurs less often is not merged.", "0");
    private readonly Option<bool> _gpt2 = CommonOptions.Flag("--gpt2_words", "Cut words as GPT-2 does. Otherwise as cl100k_base does, with at most three digits in one.");
    private readonly Option<string?> _root = CommonOptions.Root();
    private readonly Option<bool> _json = CommonOptions.Json();

    public override IReadOnlyList<Option> Options => [.. _input.All, _size, _out, _specials, _minimum, _gpt2, _root, _json];

    public override Func<CancellationToken, Task<int>> Read(Arguments arguments)
    {
        Func<CancellationToken, TextInput> open = _input.Read(arguments, _root);
        List<string> specials = [.. (arguments.Text(_specials) ?? "").Split(',', StringSplitOptions.TrimEntries)];
        if (specials is [""]) specials = [];
        if (!specials.Contains(Tokenizer.EndOfText)) specials.Insert(0, Tokenizer.EndOfText);
        int? size = arguments.Whole(_size, 1, LargestVocabulary);
        BytePairOptions options = new()
        {
            // Where none is given, only the others are checked.
            VocabularySize = size ?? LargestVocabulary, SpecialTokens = specials, MinimumFrequency = arguments.Whole(_minimum, 0, int.MaxValue) ?? 0, Gpt2Words = arguments.Flag(_gpt2),
        };
        foreach ((string property, string problem) in options.Problems())
        {
            Option<string?> option = property == nameof(options.SpecialTokens) ? _specials : property == nameof(options.VocabularySize) ? _size : _minimum;
            arguments.Add(option.Name, arguments.Text(option) ?? "", problem);
        }
        string folder = OutputFolder.Read(arguments, _out);
        bool json = arguments.Flag(_json);
        return cancel => Task.Run(() => Run(open, options, folder, json, cancel), CancellationToken.None);
    }

    private static int Run(Func<CancellationToken, TextInput> open, BytePairOptions options, string folder, bool json, CancellationToken cancel)
    {
        using ReservedFolder reserved = OutputFolder.Reserve(folder);
        using TextInput input = open(cancel);
        Stopwatch watch = Stopwatch.StartNew();
        ReadingReport report = new();
        TerminalProgress terminal = new(Console.Error);
        BytePairProgress state = default;
        IEnumerable<string> texts = input.Texts(report, read => terminal.Show(new ProgressEvent("counting words", Counting * Math.Min(read, 1), report.Bytes / watch.Elapsed.TotalSeconds)), cancel);
        Tokenizer tokenizer = BytePairTrainer.Train(texts, options, now =>
        {
            if (now.Tokens > 0) terminal.Show(new ProgressEvent($"merging: {now.Tokens} tokens", Math.Min(0.999, Counting + ((1 - Counting) * now.Tokens / options.VocabularySize))));
            state = now;
        }, cancel);
        terminal.End();
        if (report.HasProblems) Console.Error.WriteLine(report);
        if (state.Documents == 0) throw new UserException("the input holds no text, so there is nothing to learn from: name files with documents");
        cancel.ThrowIfCancellationRequested();
        tokenizer.Save(folder);
        reserved.Keep();
        double seconds = watch.Elapsed.TotalSeconds;
        string fewer = tokenizer.VocabularySize < options.VocabularySize ? $" (there are no more pairs to merge, so it is smaller than the {options.VocabularySize} asked for)" : "";
        Console.Error.WriteLine(string.Create(CultureInfo.InvariantCulture,
            $"{folder} has the tokenizer: {tokenizer.VocabularySize} tokens{fewer} from {state.Documents} documents, {TextTable.Bytes(state.Bytes)}, in {seconds:0.0} s"));
        if (json)
        {
            Console.WriteLine(JsonSerializer.Serialize(new
            {
                Out = Path.GetFullPath(folder), tokenizer.VocabularySize, tokenizer.Hash, tokenizer.SpecialTokens, state.Documents, state.Bytes, state.DistinctWords, Seconds = Math.Round(seconds, 3), Reading = report,
            }, ReplyWriter.Json));
        }
        return ExitCode.Done;
    }
}
