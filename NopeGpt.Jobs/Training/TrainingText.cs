using System.Text;
using NopeGpt.Data.Documents;

namespace NopeGpt.Jobs.Training;

/// <summary>The documents that a tokenizer is trained on, read once, with counts of them and a sample spread evenly over them.</summary>
/// <param name="most">UTF-8 bytes after which no further document is read; 0 for all.</param>
internal sealed class TrainingText(Source source, ColumnMapping column, long most, CancellationToken cancel)
{
    private const int SampleBytes = 4 << 20;

    private List<(string Text, int Bytes)> _sample = [];
    private long _sampled;
    private int _every = 1;
    private double _source;

    /// <summary>A part of the source is done.</summary>
    public event Action? Advanced;

    public ReadingReport Report { get; } = new();

    public long Count { get; private set; }

    public long Bytes { get; private set; }

    /// <summary>Done part of the reading, 0 to 1.</summary>
    public double Fraction => most == 0 ? _source : Math.Clamp(Math.Max(_source, (double)Bytes / most), 0, 1);

    public IEnumerable<string> Sample => _sample.Select(document => document.Text);

    public IEnumerable<string> Documents()
    {
        foreach (Shard shard in source.Select(column).Shards(default, cancel))
        {
            foreach (string text in shard.Texts(column, Report))
            {
                if (most > 0 && Bytes >= most) yield break;
                int bytes = Encoding.UTF8.GetByteCount(text);
                if (Count % _every == 0) Keep(text, bytes);
                Count++;
                Bytes += bytes;
                yield return text;
            }
            _source = shard.Fraction;
            Advanced?.Invoke();
        }
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
