using System.Text;
using NopeGpt.Data.Chat;
using NopeGpt.Data.Documents;

namespace NopeGpt.Jobs.Training;

/// <summary>The documents that a tokenizer is trained on, read once, with counts of them and a sample spread evenly over them. Of conversations each
/// message is one.</summary>
/// <param name="advanced">Told the done part and the bytes of text, after each part of the source.</param>
internal sealed class TrainingText(TokenizerConfig recipe, Action<double, long> advanced, CancellationToken cancel)
{
    /// <summary>Text that the program makes is without an end.</summary>
    private const long StoryBytes = 8_000_000;

    private const int SampleBytes = 4 << 20, StoriesInPart = 256;

    private List<(string Text, int Bytes)> _sample = [];
    private long _sampled;
    private int _every = 1;

    public ReadingReport Report { get; } = new();

    public long Count { get; private set; }

    public long Bytes { get; private set; }

    public IEnumerable<string> Sample => _sample.Select(document => document.Text);

    /// <summary>The documents of a source, to the recipe's number of bytes.</summary>
    public IEnumerable<string> Read(Source source, ColumnMapping columns)
    {
        ConversationReader? reader = columns.Kind == DatasetKind.Text ? null : new(new ConversationOptions { Columns = columns });
        foreach (Shard shard in source.Select(columns).Shards(default, cancel))
        {
            foreach (string text in reader is null ? shard.Texts(columns, Report) : shard.Records(Report).SelectMany(record => Messages(reader, record)))
            {
                yield return Take(text);
                if (recipe.MaximumBytes > 0 && Bytes >= recipe.MaximumBytes) yield break;
            }
            advanced(Math.Max(shard.Fraction, recipe.MaximumBytes > 0 ? (double)Bytes / recipe.MaximumBytes : 0), Bytes);
        }
    }

    /// <summary>Stories that the program makes.</summary>
    public IEnumerable<string> Stories(ulong seed)
    {
        long most = recipe.MaximumBytes > 0 ? Math.Min(recipe.MaximumBytes, StoryBytes) : StoryBytes;
        foreach (string story in StoryGenerator.Stories(seed))
        {
            cancel.ThrowIfCancellationRequested();
            yield return Take(story);
            if (Bytes >= most) yield break;
            if (Count % StoriesInPart == 0) advanced((double)Bytes / most, Bytes);
        }
    }

    private IEnumerable<string> Messages(ConversationReader reader, Record record)
    {
        if (reader.TryRead(record, out Conversation? conversation, out RecordProblem? problem)) return conversation.Messages.Select(message => message.Content);
        Report.AddBad(record.File, record.Row, $"{(problem.Field.Length == 0 ? "the record" : problem.Field)} {problem.Problem}; {problem.Cure}");
        return [];
    }

    private string Take(string text)
    {
        int bytes = Encoding.UTF8.GetByteCount(text);
        if (Count % _every == 0) Keep(text, bytes);
        Count++;
        Bytes += bytes;
        return text;
    }

    /// <summary>Every n-th document; where they become too many, every second of them goes and n doubles.</summary>
    private void Keep(string text, int bytes)
    {
        // Of a huge document the beginning is enough.
        if (bytes > SampleBytes)
        {
            text = text[..(SampleBytes / 8)];
            bytes = Encoding.UTF8.GetByteCount(text);
        }
        _sample.Add((text, bytes));
        _sampled += bytes;
        while (_sampled > SampleBytes && _sample.Count > 1)
        {
            _sample = [.. _sample.Where((_, place) => place % 2 == 0)];
            _sampled = _sample.Sum(document => (long)document.Bytes);
            _every *= 2;
        }
    }
}
