using System.CommandLine;
using System.Globalization;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using NopeGpt.Data;
using NopeGpt.Data.Tokenization;
using NopeGpt.Jobs.Configuration;
using NopeGpt.Jobs.Datasets;

namespace NopeGpt.Jobs.Commands;

/// <summary>`nopegpt data inspect`: what a token file holds, and whether it is whole.</summary>
internal sealed class DataInspectVerb() : Verb("inspect", "Check a token file and print its header, the lengths of its documents and how many of them are repeated.")
{
    public const string What = "A data set of the store by name or folder, a token file, or the .messages file of conversations beside one.";
    private const int BarWidth = 40;

    private readonly Argument<string?> _file = new("FILE") { Description = What, Arity = ArgumentArity.ExactlyOne };
    private readonly Option<string?> _tokenizer = TokenizerArgument.Option(required: false, " The file must have been made with it. Default: the tokenizer.json beside the file."), _tiktoken = CommonOptions.Tiktoken();
    private readonly Option<bool> _raw = CommonOptions.RawTokens(aliases: "--raw"), _noVerify = CommonOptions.Flag("--no_verify", "Do not compare the checksum.");
    private readonly Option<string?> _root = CommonOptions.Root();
    private readonly Option<bool> _json = CommonOptions.Json();

    public override IReadOnlyList<Argument> Positions => [_file];

    public override IReadOnlyList<Option> Options => [_tokenizer, _raw, _noVerify, _tiktoken, _root, _json];

    public override Func<CancellationToken, Task<int>> Read(Arguments arguments)
    {
        TokenizerArgument? tokenizer = TokenizerArgument.Read(arguments, _tokenizer, _tiktoken, _root);
        IReadOnlyList<string> places = arguments.TokenizerPlaces(_tiktoken, _root);
        TokenDataArgument? data = null;
        if (arguments.Text(_file) is { } words)
        {
            data = TokenDataArgument.Find(arguments, _root, _file.Name, words, arguments.Flag(_raw));
            if (data is null) TokenDataArgument.Missing(arguments, _root, _file.Name, words);
        }
        (bool verify, bool json) = (!arguments.Flag(_noVerify), arguments.Flag(_json));
        return cancel => Task.Run(() =>
        {
            using OpenedTokens opened = data!.Open(tokenizer, places, arguments.TokenizerDownload(_root));
            if (verify) Verify(opened, cancel);
            if (opened.Problem is { } problem) Console.Error.WriteLine(problem);
            TokenStatistics statistics = TokenStatistics.Of(opened.File, cancel);
            Console.WriteLine(json ? Report(opened, statistics, verify).ToJsonString(Settings.Json) : Words(Report(opened, statistics, verify), statistics));
            return ExitCode.Done;
        }, CancellationToken.None);
    }

    private static void Verify(OpenedTokens opened, CancellationToken cancel)
    {
        opened.File.Verify(cancel);
        opened.Chat?.VerifyMessages();
    }

    private static JsonObject Report(OpenedTokens opened, TokenStatistics statistics, bool verified)
    {
        TokenFile file = opened.File;
        JsonObject report = new()
        {
            ["path"] = Path.GetFullPath(file.Path),
            ["format"] = file.IsRaw ? "raw" : opened.Chat is null ? "tokens" : "conversations",
            ["version"] = file.IsRaw ? null : file.FormatVersion,
            ["bytes"] = new FileInfo(file.Path).Length,
            ["id_bytes"] = file.IdBytes,
            ["vocabulary_size"] = file.IsRaw && opened.Tokenizer is null ? null : file.VocabularySize,
            ["tokenizer_hash"] = file.TokenizerHash.Length > 0 ? file.TokenizerHash : null,
            ["tokenizer"] = opened.Tokenizer is null ? null : opened.From,
            ["documents"] = file.DocumentCount,
            ["tokens"] = file.Count,
            ["text_bytes"] = file.IsRaw ? null : file.TextBytes,
            ["bytes_per_token"] = file.IsRaw || file.Count == 0 ? null : (double)file.TextBytes / file.Count,
            ["end_of_text"] = file.IsRaw ? null : file.EndOfText.ToString().ToLowerInvariant(),
            ["sha256"] = file.IsRaw ? null : file.Sha256,
            ["verified"] = verified && !file.IsRaw,
        };
        if (file.IsRaw) report["largest_id"] = Largest(file);
        if (opened.Chat is not null) report["messages"] = opened.Chat.MessageCount;
        report["lengths"] = new JsonObject
        {
            ["min"] = statistics.Shortest, ["median"] = statistics.Median, ["mean"] = statistics.MeanLength, ["p95"] = statistics.Percentile95, ["max"] = statistics.Longest,
            ["histogram"] = JsonSerializer.SerializeToNode(statistics.Lengths, Settings.Json),
        };
        report["duplicate_share"] = statistics.DuplicateShare;
        report["duplicates_estimated"] = statistics.DuplicatesEstimated;
        string folder = Path.GetDirectoryName(Path.GetFullPath(file.Path))!;
        if (Path.GetFileName(file.Path) == DatasetMaker.TokensName && File.Exists(Path.Combine(folder, DatasetInfo.FileName)))
            report["dataset"] = JsonSerializer.SerializeToNode(DatasetInfo.Read(folder) with { Statistics = null }, Settings.Json);
        return report;
    }

    private static int Largest(TokenFile file)
    {
        int largest = -1;
        int[] ids = new int[Math.Min(1 << 18, file.Count)];
        for (long at = 0; at < file.Count; at += ids.Length)
        {
            Span<int> part = ids.AsSpan(0, (int)Math.Min(ids.Length, file.Count - at));
            file.Read(at, part);
            foreach (int id in part) largest = Math.Max(largest, id);
        }
        return largest;
    }

    private static string Words(JsonObject report, TokenStatistics statistics)
    {
        StringBuilder text = new();
        foreach ((string name, JsonNode? value) in report)
            if (value is JsonValue) text.Append(CultureInfo.InvariantCulture, $"{name,-22}{Shown(value)}\n");
        if (report["dataset"] is JsonObject dataset)
        {
            text.Append("\ndataset\n");
            foreach (string name in (string[])["kind", "columns", "origin", "licence", "run_id"])
                if (dataset[name] is JsonValue value && value.ToString().Length > 0) text.Append(CultureInfo.InvariantCulture, $"  {name,-20}{Shown(value)}\n");
        }
        text.Append(CultureInfo.InvariantCulture,
            $"\ntokens in a document: shortest {statistics.Shortest}, median {statistics.Median}, mean {statistics.MeanLength:0.0}, 95 of 100 up to {statistics.Percentile95}, longest {statistics.Longest}\n");
        long most = statistics.Lengths.Count == 0 ? 1 : Math.Max(1, statistics.Lengths.Max(l => l.Documents));
        text.Append(TextTable.Format(["from", "to", "documents", ""],
            statistics.Lengths.Select(l => (IReadOnlyList<object?>)[l.From, l.To, l.Documents, new string('█', (int)Math.Ceiling((double)BarWidth * l.Documents / most))])));
        return text.ToString().TrimEnd('\n');
    }

    private static string Shown(JsonNode value) =>
        value.GetValueKind() == JsonValueKind.String ? value.GetValue<string>()
        : value is JsonValue number && number.TryGetValue(out long whole) ? whole.ToString("#,0", CultureInfo.InvariantCulture)
        : value is JsonValue other && other.TryGetValue(out double real) ? real.ToString("0.####", CultureInfo.InvariantCulture)
        : value.ToJsonString();
}
