using System.CommandLine;
using System.Text.Json;
using NopeGpt.Data.Documents;
using NopeGpt.Data.Tokenization;
using NopeGpt.Jobs.Inference.Http;

namespace NopeGpt.Jobs.Commands;

/// <summary>`nopegpt tokenizer compare`: what several tokenizers make of one text.</summary>
internal sealed class TokenizerCompareVerb() : Verb("compare", "Compare how tokenizers compress a text: tokens, bytes a token, and the size of the ids as a share of the text's.")
{
    private readonly Option<string[]> _tokenizers = CommonOptions.Texts("--tokenizers", "A,B", $"Tokenizers, with commas between them or one after the other; each is {TokenizerArgument.What}", required: true, aliases: "--tokenizer");
    private readonly TextInputOptions _input = new();
    private readonly Option<string?> _bytes = CommonOptions.Text("--max_bytes", "N", "Bytes of text at most: of every file its beginning, in proportion to its size.", "10000000");
    private readonly Option<string?> _tiktoken = CommonOptions.Tiktoken(), _root = CommonOptions.Root();
    private readonly Option<bool> _json = CommonOptions.Json();

    public override IReadOnlyList<Option> Options => [_tokenizers, .. _input.All, _bytes, _tiktoken, _root, _json];

    public override Func<CancellationToken, Task<int>> Read(Arguments arguments)
    {
        string[] names = [.. arguments.Texts(_tokenizers).SelectMany(words => Path.Exists(words) ? [words] : words.Split(',', StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries)).Distinct()];
        TokenizerArgument[] tokenizers = [.. names.Select(name => TokenizerArgument.Read(arguments, _tokenizers.Name, name, _tiktoken, _root))];
        Func<CancellationToken, TextInput> open = _input.Read(arguments, _root);
        long bytes = arguments.Whole(_bytes, 1, int.MaxValue) ?? 1;
        bool json = arguments.Flag(_json);
        return cancel => Task.Run(() => Run(tokenizers, open, bytes, json, cancel), CancellationToken.None);
    }

    private static int Run(TokenizerArgument[] named, Func<CancellationToken, TextInput> open, long bytes, bool json, CancellationToken cancel)
    {
        (List<(string, Tokenizer)> tokenizers, List<string> problems) = ([], []);
        foreach (TokenizerArgument one in named)
        {
            try { tokenizers.Add((one.Name, one.Load())); }
            catch (Exception e) when (e is FileNotFoundException or InvalidDataException) { problems.Add(e.Message); }
        }
        if (problems.Count > 0) throw new UserException(string.Join('\n', problems));
        using TextInput input = open(cancel);
        ReadingReport report = new();
        IReadOnlyList<Compression> found = TokenizerComparison.Compare(input.Sample(bytes, report, cancel), tokenizers, cancel);
        if (report.HasProblems) Console.Error.WriteLine(report);
        if (found[0].Documents == 0) throw new UserException("the input holds no text: name files with documents");
        if (json)
        {
            var rows = found.Select(f => new { f.Name, f.VocabularySize, f.Tokens, f.BytesPerToken, f.Ratio, f.DistinctTokens, LossyDocuments = f.Changed });
            Console.WriteLine(JsonSerializer.Serialize(new { found[0].Documents, found[0].Bytes, found[0].Characters, Tokenizers = rows, Reading = report }, ReplyWriter.Json));
            return ExitCode.Done;
        }
        Console.WriteLine($"{found[0].Documents} documents, {TextTable.Bytes(found[0].Bytes)} of text\n");
        Console.Write(TextTable.Format(["tokenizer", "vocabulary", "tokens", "bytes/token", "ratio", "lossy documents"],
            found.Select(f => (IReadOnlyList<object?>)[f.Name, f.VocabularySize, f.Tokens, f.BytesPerToken, f.Ratio, f.Changed])));
        Console.WriteLine("\nratio: the ids in as few bits as the vocabulary needs, as a share of the text's bytes; lossy: decoding does not give the text back");
        return ExitCode.Done;
    }
}
