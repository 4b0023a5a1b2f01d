namespace NopeGpt.Data;

/// <summary>Which source each sample of a mixture comes from. Weights become whole quotas of a period; of any number of first samples each source has
/// its share to less than one sample, and of a period exactly its quota. The n-th sample of a source is known without counting; only one period is kept.</summary>
internal sealed class MixtureOrder
{
    private const int LongestExact = 1000;
    private const double FinestShare = 1 << 16, Tolerance = 1e-9;

    // _ends[i] is the sum of the quotas of the sources 0 to i.
    private readonly long[] _ends;

    // Of each sample of a period its source, and which of that source's samples in the period it is. Empty for one source alone.
    private readonly int[] _sources = [], _indices = [];

    public MixtureOrder(IReadOnlyList<double> weights)
    {
        long[] quotas = Quotas(weights);
        _ends = [.. quotas];
        for (int i = 1; i < _ends.Length; i++) _ends[i] += _ends[i - 1];
        if (quotas.Length > 1) (_sources, _indices) = Spread(quotas, Period);
    }

    public long Period => _ends[^1];

    /// <summary>The share of a source, from 0 to 1.</summary>
    public double Share(int source) => (double)(_ends[source] - First(source)) / Period;

    /// <summary>The source of a sample, and which of that source's samples it is, from 0.</summary>
    public (int Source, long Index) this[long sample]
    {
        get
        {
            if (_sources.Length == 0) return (0, sample);
            (long period, long place) = Math.DivRem(sample, Period);
            int source = _sources[place];
            return (source, (period * (_ends[source] - First(source))) + _indices[place]);
        }
    }

    /// <summary>A number divided among the sources by their quotas, exactly: each has its part rounded down, those with the greatest rest one more.</summary>
    public int[] Divide(int number)
    {
        int[] parts = [.. Enumerable.Range(0, _ends.Length).Select(i => (int)((_ends[i] - First(i)) * number / Period))];
        int left = number - parts.Sum();
        foreach (int source in Enumerable.Range(0, parts.Length).OrderByDescending(i => (_ends[i] - First(i)) * number % Period).Take(left)) parts[source]++;
        return parts;
    }

    /// <summary>Each source's samples as evenly as can be: its k-th, from 0, is due from period * k / quota on and before period * (k + 1) / quota, and of those
    /// that are due the one that must come first comes first. So none is late (Baruah, Cohen, Plaxton, Varvel: "Proportionate progress", 1996).</summary>
    private static (int[] Sources, int[] Indices) Spread(long[] quotas, long period)
    {
        int[] sources = new int[period], indices = new int[period], taken = new int[quotas.Length];
        for (int place = 0; place < period; place++)
        {
            int best = -1;
            long first = long.MaxValue;
            for (int i = 0; i < quotas.Length; i++)
            {
                long latest = ((period * (taken[i] + 1)) + quotas[i] - 1) / quotas[i];
                if (taken[i] < quotas[i] && period * taken[i] / quotas[i] <= place && latest < first) (best, first) = (i, latest);
            }
            (sources[place], indices[place]) = (best, taken[best]++);
        }
        return (sources, indices);
    }

    private long First(int source) => source == 0 ? 0 : _ends[source - 1];

    /// <summary>The smallest whole numbers in the proportion of the weights where there are such with a sum of at most 1,000, else 65,536ths.</summary>
    private static long[] Quotas(IReadOnlyList<double> weights)
    {
        double total = weights.Sum();
        for (int period = 1; period <= LongestExact; period++)
        {
            if (weights.All(w => Math.Round(w / total * period) >= 1 && Math.Abs((w / total * period) - Math.Round(w / total * period)) < Tolerance * period))
                return [.. weights.Select(w => (long)Math.Round(w / total * period))];
        }
        return [.. weights.Select(w => Math.Max(1, (long)Math.Round(w / total * FinestShare)))];
    }
}
