using System.CommandLine;
using NopeGpt.Data.Chat;
using NopeGpt.Data.Documents;
using NopeGpt.Data.Documents.Hub;
using NopeGpt.Jobs.Datasets;

namespace NopeGpt.Jobs.Commands;

/// <summary>The options by which a command takes text from sources.</summary>
internal sealed class TextInputOptions
{
    private readonly Option<string[]> _input = CommonOptions.Texts("--input", "FILES",
        $"Files, folders, quoted patterns such as 'data/**/*.jsonl.gz' or data sets of the Hub (hub:OWNER/NAME:SUBSET), as many as you like. Files end in {SourceFile.KnownEndings}, each also with .gz or .zst behind it.", required: true);
    private readonly Option<string?> _columns = CommonOptions.Text("--columns", "PART=COLUMN,...", "Which column is which part: text, or those of conversations (messages, system, prompt, input, completion, chosen, rejected), of which each message is a document. Default: well-known names.");
    private readonly Option<string?> _textColumn = CommonOptions.Text("--text_column", "COLUMN", "Short for --columns text=COLUMN.");

    public IReadOnlyList<Option> All => [_input, _columns, _textColumn];

    /// <summary>Opens the files; what is wrong is added to the problems. Data sets of the Hub are asked for when the work begins.</summary>
    public Func<CancellationToken, TextInput> Read(Arguments arguments, Option<string?> root)
    {
        ColumnMapping? columns = Columns(arguments);
        List<Func<CancellationToken, TextInput.Part>> parts = [];
        foreach (string address in arguments.Texts(_input))
        {
            try
            {
                if (TextInput.IsOfHub(address)) parts.Add(cancel => TextInput.OpenHub(arguments.Store(root), address, columns, cancel));
                else
                {
                    TextInput.Part opened = TextInput.Open(address, columns);
                    parts.Add(_ => opened);
                }
            }
            catch (Exception e) when (e is FileNotFoundException or InvalidDataException or IOException or UnauthorizedAccessException or FormatException) { arguments.Add(_input.Name, address, e.Message); }
            catch (ArgumentException e) { arguments.Add(_input.Name, address, e.Message.Split(" (Parameter")[0]); }
        }
        return cancel => new TextInput([.. parts.Select(open => open(cancel))]);
    }

    private ColumnMapping? Columns(Arguments arguments)
    {
        string? text = arguments.Text(_textColumn);
        if (text is { Length: 0 }) arguments.Add(_textColumn.Name, text, "name the column that holds the text");
        ColumnMapping? named = text is null ? null : new ColumnMapping { Text = text };
        if (arguments.Text(_columns) is not { } columns) return named;
        if (text is not null) arguments.Add(_columns.Name, columns, $"{_textColumn.Name} names a column too: leave one of them out");
        try { return ColumnMapping.Parse(columns); }
        catch (FormatException e)
        {
            arguments.Add(_columns.Name, columns, e.Message);
            return named;
        }
    }
}

/// <summary>The documents of the sources that a command was given, one after the other.</summary>
internal sealed class TextInput(IReadOnlyList<TextInput.Part> parts) : IDisposable
{
    /// <summary>Of the files as stored.</summary>
    public long Length { get; } = parts.Sum(part => part.Source.Length);

    /// <summary>Whether an address means a data set of the Hub: by its prefix, or because it is a known one and no file here. What else is no file is rather a slip.</summary>
    /// <exception cref="FormatException">It begins with hub: but is not of that form.</exception>
    public static bool IsOfHub(string address) => HubName.IsHub(address) ? OpenedSource.NameOf(address) is not null : OpenedSource.Known(address) is not null;

    /// <exception cref="FileNotFoundException">Nothing is there.</exception>
    /// <exception cref="ArgumentException">A file has no known ending.</exception>
    /// <exception cref="InvalidDataException">No column holds text, or not the one that is named.</exception>
    public static Part Open(string path, ColumnMapping? columns)
    {
        if (path.Length == 0) throw new ArgumentException("name a file, a folder or a pattern", nameof(path));
        Source source = Source.Open(path);
        return new(source, Columns(source, columns, CancellationToken.None), null);
    }

    /// <exception cref="UserException">It cannot be had.</exception>
    public static Part OpenHub(Store store, string address, ColumnMapping? columns, CancellationToken cancel)
    {
        OpenedSource opened = OpenedSource.Open(store, address, cancel: cancel);
        return new(opened.Source, Columns(opened.Source, columns ?? OpenedSource.Known(address)?.Columns, cancel), opened);
    }

    private static ColumnMapping Columns(Source source, ColumnMapping? named, CancellationToken cancel)
    {
        IReadOnlyList<string> present = source.Columns(cancel);
        // Text files have one column, whatever the others call theirs.
        bool plain = source.Files.All(file => file.Format == FileFormat.Text);
        if (named is null || plain) return ColumnMapping.Guess(present, plain ? DatasetKind.Text : null, source.Name);
        named.Check(present, source.Name);
        return named;
    }

    /// <summary>Streams all of them.</summary>
    /// <param name="progress">Is told the share of the input, by stored bytes, that is behind the shard that has just ended.</param>
    public IEnumerable<string> Texts(ReadingReport report, Action<double>? progress = null, CancellationToken cancel = default)
    {
        double before = 0;
        foreach (Part part in parts)
        {
            foreach (Shard shard in part.Source.Select(part.Columns).Shards(default, cancel))
            {
                foreach (string text in Texts(shard, part, report)) yield return text;
                progress?.Invoke((before + (shard.Fraction * part.Source.Length)) / Math.Max(1, Length));
            }
            before += part.Source.Length;
        }
    }

    /// <summary>Streams the beginning of every file, so that all together have at most so many bytes of UTF-8. Each file gives in proportion to its size; what
    /// one does not have, the ones behind it give. Of a data set of the Hub the first files give all, so that not every file is downloaded.</summary>
    public IEnumerable<string> Sample(long bytes, ReadingReport report, CancellationToken cancel = default)
    {
        double left = 0;
        foreach (Part part in parts)
        {
            if (part.Opened is not null) left += (double)bytes * part.Source.Length / Math.Max(1, Length);
            foreach (SourceFile file in part.Source.Files)
            {
                if (part.Opened is null) left += (double)bytes * file.Length / Math.Max(1, Length);
                if (left < 1) continue;
                foreach (string text in new Source(file.Name, [file]).Select(part.Columns).Shards(default, cancel).SelectMany(shard => Texts(shard, part, report)))
                {
                    string taken = Beginning(text, (int)Math.Min(left, int.MaxValue));
                    left -= System.Text.Encoding.UTF8.GetByteCount(taken);
                    if (taken.Length > 0) yield return taken;
                    if (taken.Length < text.Length) break;
                }
            }
        }
    }

    private static IEnumerable<string> Texts(Shard shard, Part part, ReadingReport report)
    {
        if (part.Columns.Kind == DatasetKind.Text) return shard.Texts(part.Columns, report);
        ConversationReader reader = new(new ConversationOptions { Columns = part.Columns });
        return shard.Records(report).SelectMany(record =>
        {
            if (reader.TryRead(record, out Conversation? conversation, out RecordProblem? problem)) return conversation.Messages.Select(message => message.Content);
            report.AddBad(record.File, record.Row, $"{(problem.Field.Length == 0 ? "the record" : $"field {problem.Field}")} {problem.Problem}; {problem.Cure}");
            return [];
        });
    }

    /// <summary>As many characters as take at most so many bytes.</summary>
    private static string Beginning(string text, int bytes)
    {
        if (System.Text.Encoding.UTF8.GetByteCount(text) <= bytes) return text;
        int used = 0, end = 0;
        foreach (System.Text.Rune rune in text.EnumerateRunes())
        {
            if (used + rune.Utf8SequenceLength > bytes) break;
            used += rune.Utf8SequenceLength;
            end += rune.Utf16SequenceLength;
        }
        return text[..end];
    }

    public void Dispose()
    {
        foreach (Part part in parts) part.Opened?.Dispose();
    }

    /// <param name="Opened">What holds the connection to the Hub; null for files.</param>
    public sealed record Part(Source Source, ColumnMapping Columns, OpenedSource? Opened);
}
