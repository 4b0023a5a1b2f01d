using System.CommandLine;
using NopeGpt.Data.Documents;

namespace NopeGpt.Jobs.Commands;

/// <summary>The options by which a command takes text from files.</summary>
internal sealed class TextInputOptions
{
    private readonly Option<string[]> _input = CommonOptions.Texts("--input", "FILES",
        $"Files, folders or quoted patterns such as 'data/**/*.jsonl.gz', as many as you like: {SourceFile.KnownEndings}, each also with .gz or .zst behind it.", required: true);
    private readonly Option<string?> _columns = CommonOptions.Text("--columns", "text=COLUMN", "Which column holds the text. Default: one with a well-known name, such as text or content.");
    private readonly Option<string?> _textColumn = CommonOptions.Text("--text_column", "COLUMN", "The same in short: COLUMN is --columns text=COLUMN.");

    public IReadOnlyList<Option> All => [_input, _columns, _textColumn];

    /// <summary>What is wrong is added to the problems.</summary>
    public TextInput Read(Arguments arguments)
    {
        string? given = arguments.Text(_textColumn), column = given;
        if (given is { Length: 0 }) arguments.Add(_textColumn.Name, given, "name the column that holds the text");
        if (arguments.Text(_columns) is { } columns)
        {
            try
            {
                column = ColumnMapping.Parse(columns).Text;
                if (column is null) arguments.Add(_columns.Name, columns, "name the column that holds the text, as text=COLUMN");
                if (given is not null) arguments.Add(_columns.Name, columns, $"{_textColumn.Name} says the same: leave one of them out");
            }
            catch (FormatException e) { arguments.Add(_columns.Name, columns, e.Message); }
        }
        List<TextInput.Part> parts = [];
        foreach (string path in arguments.Texts(_input))
        {
            try { parts.Add(TextInput.Open(path, column)); }
            catch (Exception e) when (e is FileNotFoundException or InvalidDataException or IOException or UnauthorizedAccessException) { arguments.Add(_input.Name, path, e.Message); }
            catch (ArgumentException e) { arguments.Add(_input.Name, path, e.Message.Split(" (Parameter")[0]); }
        }
        return new(parts);
    }
}

/// <summary>The documents of the files, folders and patterns that a command was given, one after the other.</summary>
internal sealed class TextInput(IReadOnlyList<TextInput.Part> parts)
{
    /// <summary>Of the files as stored.</summary>
    public long Length { get; } = parts.Sum(part => part.Source.Length);

    public int Files { get; } = parts.Sum(part => part.Source.Files.Count);

    /// <exception cref="FileNotFoundException">Nothing is there.</exception>
    /// <exception cref="ArgumentException">A file has no known ending.</exception>
    /// <exception cref="InvalidDataException">No column holds text, or not the one that is named.</exception>
    public static Part Open(string path, string? column)
    {
        if (path.Length == 0) throw new ArgumentException("name a file, a folder or a pattern", nameof(path));
        Source source = Source.Open(path);
        IReadOnlyList<string> columns = source.Columns();
        // Text files have one column, whatever the others call theirs.
        bool plain = source.Files.All(file => file.Format == FileFormat.Text);
        if (column is null || plain) return new(source, ColumnMapping.Guess(columns, DatasetKind.Text, path));
        ColumnMapping named = new() { Text = column };
        named.Check(columns, path);
        return new(source, named);
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
                foreach (string text in shard.Texts(part.Columns, report)) yield return text;
                progress?.Invoke((before + (shard.Fraction * part.Source.Length)) / Math.Max(1, Length));
            }
            before += part.Source.Length;
        }
    }

    /// <summary>Streams the beginning of every file, so that all together have at most so many bytes of UTF-8. Each file gives in proportion to its size; what
    /// one does not have, the ones behind it give.</summary>
    public IEnumerable<string> Sample(long bytes, ReadingReport report, CancellationToken cancel = default)
    {
        double left = 0;
        foreach ((SourceFile file, ColumnMapping columns) in parts.SelectMany(part => part.Source.Files.Select(file => (file, part.Columns))))
        {
            left += (double)bytes * file.Length / Math.Max(1, Length);
            foreach (string text in new Source(file.Name, [file]).Texts(columns, report, cancel))
            {
                string taken = Beginning(text, (int)Math.Min(left, int.MaxValue));
                left -= System.Text.Encoding.UTF8.GetByteCount(taken);
                if (taken.Length > 0) yield return taken;
                if (taken.Length < text.Length) break;
            }
        }
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

    public sealed record Part(Source Source, ColumnMapping Columns);
}
