using System.CommandLine;
using System.Globalization;
using System.Text.Json;
using NopeGpt.Data.Chat;
using NopeGpt.Data.Documents;
using NopeGpt.Data.Tokenization;
using NopeGpt.Jobs.Datasets;
using NopeGpt.Jobs.Inference.Http;

namespace NopeGpt.Jobs.Commands;

/// <summary>`nopegpt data preview`: what a model would see.</summary>
internal sealed class DataPreviewVerb() : Verb("preview",
    "Show the first documents or conversations of a source, or the rows of a run's first batch from a data set or token file: as text, as tokens, or with what the loss sees.")
{
    /// <summary>A shard of a source, so that little is read for some documents.</summary>
    private const int ShardBytes = 1 << 20;

    private static readonly PreviewOptions _usual = new();

    private readonly Argument<string[]> _source = new("SOURCE")
    {
        Description = $"A source ({OpenedSource.Forms}), or: {DataInspectVerb.What} Several token files are mixed in equal shares.", Arity = ArgumentArity.OneOrMore,
    };

    private readonly Option<string?> _tokenizer = TokenizerArgument.Option(required: false, " Default: the one beside a token file; of a source without one, the text is shown."), _tiktoken = CommonOptions.Tiktoken();
    private readonly Option<string?> _count = CommonOptions.Text("--count", "N", "Documents, conversations, pairs or rows.", _usual.Count.ToString(CultureInfo.InvariantCulture));
    private readonly Option<bool> _raw = CommonOptions.Flag("--raw", "Show the text."), _tokens = CommonOptions.Flag("--tokens", "Show every token with its id."), _labels = CommonOptions.Flag("--labels", "Show what the loss sees: green on a terminal, in «» elsewhere.");
    private readonly Option<string?> _columns = CommonOptions.Text("--columns", "PART=COLUMN,...", "Which column of a source is which part: text, messages, system, prompt, input, completion, chosen, rejected. Default: well-known names.");
    private readonly Option<string?> _textColumn = CommonOptions.Text("--text_column", "COLUMN", "Short for --columns text=COLUMN."), _kind = CommonOptions.Text("--kind", "KIND", "What a source's records are: auto, text, chat or preference.", "auto");
    private readonly Option<string?> _length = CommonOptions.Text("--tokens_per_sample", "N", "Tokens of a row at most. Default: 256, for conversations 8192.");
    private readonly Option<string?> _holdout = CommonOptions.Text("--num_eval_samples", "N", "Samples that the run holds out. Default: 64, or none where the file is too small."), _seed = CommonOptions.Text("--seed", "N", "The run's seed.", "1337");
    private readonly Option<string?> _lossOn = CommonOptions.Text("--loss_on", "WHAT", "What is learned of a conversation: reply, reply_without_header or everything.", "reply");
    private readonly Option<bool> _packing = CommonOptions.Flag("--packing", "Several conversations share a row."), _unpacked = CommonOptions.Flag("--unpacked", "Samples of plain text end with their document."), _rawTokens = CommonOptions.RawTokens();
    private readonly Option<string?> _characters = CommonOptions.Text("--max_characters", "N", "Characters of a row that are printed, 0 for all; JSON has all.", "2000"), _colour = CommonOptions.Text("--color", "WHEN", "auto, always or never.", "auto", aliases: "--colour");
    private readonly Option<string?> _root = CommonOptions.Root();
    private readonly Option<bool> _json = CommonOptions.Flag("--json", "Print one JSON document on stdout: rows, each with title, text and, where a tokenizer is known, tokens: id, text, label, sequence.");

    public override IReadOnlyList<Argument> Positions => [_source];

    public override IReadOnlyList<Option> Options =>
        [_tokenizer, _count, _raw, _tokens, _labels, _columns, _textColumn, _kind, _length, _holdout, _seed, _lossOn, _packing, _unpacked, _rawTokens, _characters, _colour, _tiktoken, _root, _json];

    private sealed record Work(TokenizerArgument? Tokenizer, IReadOnlyList<string> Places, EncodingDownload? Download, PrepareConfig Recipe, PreviewOptions Options, PreviewView? View, Func<Store> Store);

    public override Func<CancellationToken, Task<int>> Read(Arguments arguments)
    {
        TokenizerArgument? tokenizer = TokenizerArgument.Read(arguments, _tokenizer, _tiktoken, _root);
        (Option<bool>, PreviewView)[] flags = [(_raw, PreviewView.Raw), (_tokens, PreviewView.Tokens), (_labels, PreviewView.Labels)];
        PreviewView[] views = [.. flags.Where(f => arguments.Flag(f.Item1)).Select(f => f.Item2)];
        if (views.Length > 1) arguments.Problems.Add("--raw, --tokens and --labels are three ways to show the same: choose one");
        Work work = new(tokenizer, arguments.TokenizerPlaces(_tiktoken, _root), arguments.TokenizerDownload(_root), Recipe(arguments), PreviewOptionsOf(arguments), views.Length == 1 ? views[0] : null, () => arguments.Store(_root));
        (List<TokenDataArgument> files, List<string> sources) = Inputs(arguments);
        if (files.Count > 0 && sources.Count > 0) arguments.Add(_source.Name, string.Join(' ', arguments.Texts(_source)), "token files and sources cannot be shown together: name the ones or the others");
        if (files.Count > 1 && files.Any(file => file.IsChat)) arguments.Add(_source.Name, string.Join(' ', arguments.Texts(_source)), "conversations are shown from one file at a time: name one");
        if (sources.Count > 0 && tokenizer is null && work.View is PreviewView.Tokens or PreviewView.Labels) arguments.Problems.Add("--tokenizer is missing: name the tokenizer that makes the tokens of a source");
        int characters = arguments.Whole(_characters, 0, int.MaxValue) ?? 0;
        string colour = arguments.Text(_colour) ?? "auto";
        if (colour is not ("auto" or "always" or "never")) arguments.Add(_colour.Name, colour, "choose auto, always or never");
        bool colours = colour == "always" || (colour == "auto" && !Console.IsOutputRedirected && Environment.GetEnvironmentVariable("NO_COLOR") is null or ""), json = arguments.Flag(_json);
        return cancel => Task.Run(() =>
        {
            IReadOnlyList<PreviewRow> rows = files.Count > 0 ? OfFiles(files, work) : OfSources(sources, work, cancel);
            if (json) Console.WriteLine(JsonSerializer.Serialize(new { Rows = rows.Select(row => work.View == PreviewView.Raw ? row with { Tokens = null } : row) }, ReplyWriter.Json));
            else Print(rows, work, new PreviewWriter(Console.Out, colours, characters), files is [{ IsChat: true }]);
            return ExitCode.Done;
        }, CancellationToken.None).WaitAsync(cancel);
    }

    private static void Print(IReadOnlyList<PreviewRow> rows, Work work, PreviewWriter writer, bool chat)
    {
        // Of plain text the loss sees all.
        foreach (PreviewRow row in rows)
            writer.Write(row, row.Tokens is null ? PreviewView.Raw : work.View ?? (chat || row.Tokens.Skip(1).Any(token => !token.Label) ? PreviewView.Labels : PreviewView.Tokens));
    }

    private PreviewOptions PreviewOptionsOf(Arguments arguments)
    {
        string lossOn = arguments.Text(_lossOn) ?? "reply";
        if (!Enum.TryParse(lossOn.Replace("_", "", StringComparison.Ordinal), ignoreCase: true, out ChatLabels labels) || char.IsAsciiDigit(lossOn.FirstOrDefault()))
            arguments.Add(_lossOn.Name, lossOn, "choose reply, reply_without_header or everything");
        if (arguments.Flag(_packing) && arguments.Flag(_unpacked)) arguments.Problems.Add("--packing is for conversations and --unpacked for plain text: choose one");
        return new PreviewOptions
        {
            Count = arguments.Whole(_count, 1, 100_000) ?? 1,
            TokensPerSample = arguments.Whole(_length, 1, 1 << 24),
            HoldoutSamples = arguments.Whole(_holdout, 0, int.MaxValue),
            Seed = arguments.Seed(_seed) ?? _usual.Seed,
            Packed = arguments.Flag(_packing) ? true : arguments.Flag(_unpacked) ? false : null,
            Labels = labels,
        };
    }

    private PrepareConfig Recipe(Arguments arguments)
    {
        string kind = arguments.Text(_kind) ?? "auto", columns = arguments.Text(_columns) ?? "", text = arguments.Text(_textColumn) ?? "";
        if (!Enum.TryParse(kind, ignoreCase: true, out PrepareKind parsed) || char.IsAsciiDigit(kind.FirstOrDefault())) arguments.Add(_kind.Name, kind, "choose auto, text, chat or preference");
        if (columns.Length > 0 && text.Length > 0) arguments.Add(_columns.Name, columns, $"{_textColumn.Name} names a column too: leave one of them out");
        try { if (columns.Length > 0) _ = ColumnMapping.Parse(columns); }
        catch (FormatException e) { arguments.Add(_columns.Name, columns, e.Message); }
        return new PrepareConfig { Kind = parsed, Columns = columns, TextColumn = text };
    }

    private (List<TokenDataArgument> Files, List<string> Sources) Inputs(Arguments arguments)
    {
        (List<TokenDataArgument> files, List<string> sources) = ([], []);
        foreach (string words in arguments.Texts(_source))
        {
            if (TokenDataArgument.Find(arguments, _root, _source.Name, words, arguments.Flag(_rawTokens)) is { } file)
            {
                files.Add(file);
                continue;
            }
            sources.Add(words);
            try
            {
                if (words == PrepareConfig.Stories || TextInput.IsOfHub(words)) continue;
                bool isSource = File.Exists(words) ? SourceFile.FormatOf(words) is not null : Directory.Exists(words) || words.Contains('/') || words.AsSpan().ContainsAny("*?") || words.Contains('.');
                if (isSource) OpenedSource.OpenFiles(words).Dispose();
                else TokenDataArgument.Missing(arguments, _root, _source.Name, words, $", or a source: {OpenedSource.Forms}");
            }
            catch (Exception e) when (e is UserException or FormatException or IOException or UnauthorizedAccessException) { arguments.Add(_source.Name, words, e.Message); }
        }
        return (files, sources);
    }

    private static IReadOnlyList<PreviewRow> OfFiles(List<TokenDataArgument> files, Work work)
    {
        List<OpenedTokens> opened = [];
        try
        {
            foreach (TokenDataArgument file in files) opened.Add(file.Open(work.Tokenizer, work.Places, work.Download));
            Tokenizer tokenizer = opened[0].Tokenizer ?? throw new UserException(opened[0].Problem!);
            return opened[0].Chat is { } chat ? DatasetPreview.Rows(chat, tokenizer, work.Options) : DatasetPreview.Rows([.. opened.Select(o => o.File)], tokenizer, work.Options);
        }
        finally
        {
            foreach (OpenedTokens one in opened) one.Dispose();
        }
    }

    private static List<PreviewRow> OfSources(List<string> sources, Work work, CancellationToken cancel)
    {
        Tokenizer? tokenizer = work.Tokenizer?.Load();
        List<PreviewRow> rows = [];
        TerminalProgress terminal = new(Console.Error);
        foreach (string address in sources)
        {
            if (address == PrepareConfig.Stories && !Path.Exists(address))
            {
                rows.AddRange(StoryGenerator.Stories(work.Options.Seed).Take(work.Options.Count).Select((text, i) => DatasetPreview.Document($"story {i}", text, tokenizer, work.Options)));
                continue;
            }
            SourceOptions options = new() { ShardBytes = ShardBytes, FilesAhead = 0 };
            using OpenedSource source = !TextInput.IsOfHub(address) ? OpenedSource.OpenFiles(address, options)
                : OpenedSource.Open(work.Store(), address, options, d => terminal.Show(new ProgressEvent($"getting {d.File}", (double)d.Bytes / Math.Max(1, d.Total))), cancel: cancel);
            PrepareConfig recipe = work.Recipe with { Source = address };
            (DatasetKind kind, ColumnMapping columns) = Columns(recipe, source, cancel);
            ReadingReport report = new();
            Tokenizer? with = kind == DatasetKind.Text ? tokenizer : tokenizer?.WithChatMarkers();
            rows.AddRange(DatasetPreview.Records(source.Source, kind, columns, DatasetMaker.Reader(recipe, columns), with, work.Options, report, cancel));
            terminal.End();
            if (report.HasProblems) Console.Error.WriteLine($"{address}: {report}");
        }
        return rows.Count > 0 ? rows : throw new UserException($"{string.Join(", ", sources)}: nothing in it can be shown; the first lines above say what is wrong with it");
    }

    private static (DatasetKind, ColumnMapping) Columns(PrepareConfig recipe, OpenedSource source, CancellationToken cancel)
    {
        try { return DatasetMaker.Columns(recipe, source, cancel); }
        catch (UserException e)
        {
            // The settings of a run have the names of the options here.
            throw new UserException(e.Message.Replace($"prepare.source = {recipe.Source}: ", "", StringComparison.Ordinal).Replace("prepare.", "--", StringComparison.Ordinal));
        }
    }
}
