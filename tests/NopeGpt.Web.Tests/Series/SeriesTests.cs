using NopeGpt.Jobs;
using NopeGpt.Web.Series;
using NopeGpt.Web.Tests.Live;

namespace NopeGpt.Web.Tests.Series;

public sealed class SeriesTests
{
    [Fact]
    public void Few_points_come_as_they_are()
    {
        MetricColumns columns = Columns((1, 5), (2, 3), (3, 4));
        Assert.Equal([new(1, 5, 5, 5, 5), new(2, 3, 3, 3, 3), new(3, 4, 4, 4, 4)], Compute(columns, new("train/loss", SeriesAxis.Step, null, null, 3, 0)));
    }

    [Fact]
    public void Many_points_become_buckets_with_extremes_and_mean()
    {
        MetricColumns columns = Columns((1, 5), (2, 3), (3, 10), (4, 20));
        Assert.Equal([new(1.5, 3, 5, 4, 4), new(3.5, 10, 20, 15, 15)], Compute(columns, new("train/loss", SeriesAxis.Step, null, null, 2, 0)));
    }

    [Fact]
    public void No_point_is_lost_or_counted_twice_in_buckets()
    {
        Random random = new(7);
        (long Step, double Loss)[] raw = [.. Enumerable.Range(1, 10_000).Select(i => ((long)i, random.NextDouble()))];
        List<SeriesBucket> buckets = Compute(Columns(raw), new("train/loss", SeriesAxis.Step, null, null, 100, 0));
        Assert.Equal(100, buckets.Count);
        Assert.Equal(raw.Average(r => r.Loss), buckets.Average(b => b.Mean), 1e-4);
        Assert.Equal((float)raw.Min(r => r.Loss), buckets.Min(b => b.Min));
        Assert.Equal((float)raw.Max(r => r.Loss), buckets.Max(b => b.Max));
        Assert.True(buckets.Zip(buckets.Skip(1)).All(p => p.First.X < p.Second.X));
    }

    [Fact]
    public void A_clock_that_is_set_back_does_not_lead_the_curve_back_over_itself()
    {
        MetricColumns columns = new();
        double[] seconds = [10, 11, 12, -3588, -3587, -3586];
        for (int i = 0; i < seconds.Length; i++) columns.Add(Scribe.Step(i + 1, 5) with { Time = DateTimeOffset.UnixEpoch.AddSeconds(10_000 + seconds[i]) });
        Assert.Equal([10_010.0, 10_011, 10_012, 10_012, 10_013, 10_014], columns.Points("train/loss", SeriesAxis.Wall).Select(p => p.X));
    }

    [Theory]
    [InlineData(2.0, 3.0, new double[] { 2, 3 })]
    [InlineData(2.5, null, new double[] { 3, 4 })]
    [InlineData(null, 1.0, new double[] { 1 })]
    [InlineData(9.0, null, new double[0])]
    public void A_part_is_what_lies_between_its_ends(double? from, double? to, double[] expected)
    {
        Assert.Equal(expected, Compute(Columns((1, 1), (2, 1), (3, 1), (4, 1)), new("train/loss", SeriesAxis.Step, from, to, 100, 0)).Select(b => b.X));
    }

    [Fact]
    public void Smoothing_is_debiased_and_does_not_depend_on_the_zoom()
    {
        // By hand for w = 0.5: 4/2 /(1/2) = 4; (2 + 2)/2... last = 2, 2 + 1 = 3 -> /(3/4); 1.5 + 4 = 5.5 -> /(7/8).
        MetricColumns columns = Columns((1, 4), (2, 4), (3, 8));
        float[] smoothed = [.. Compute(columns, new("train/loss", SeriesAxis.Step, null, null, 10, 0.5)).Select(b => b.Smoothed)];
        Assert.Equal([4f, 4f, (float)(5.5 / 0.875)], smoothed);
        Assert.Equal(smoothed[2], Compute(columns, new("train/loss", SeriesAxis.Step, 3, null, 10, 0.5)).Single().Smoothed);
    }

    [Fact]
    public void Values_that_are_not_finite_are_marked_and_do_not_smooth()
    {
        MetricColumns columns = Columns((1, 4), (2, double.NaN), (3, 8), (4, double.PositiveInfinity));
        List<SeriesBucket> buckets = Compute(columns, new("train/loss", SeriesAxis.Step, null, null, 10, 0.5));
        Assert.True(float.IsNaN(buckets[1].Mean) && float.IsNaN(buckets[1].Min) && float.IsNaN(buckets[1].Smoothed));
        Assert.Equal((float)(5 / 0.75), buckets[2].Smoothed);
        Assert.Equal(float.PositiveInfinity, buckets[3].Mean);
        List<SeriesBucket> halves = Compute(columns, new("train/loss", SeriesAxis.Step, null, null, 2, 0));
        Assert.Equal((4f, 4f, 4f), (halves[0].Min, halves[0].Max, halves[0].Smoothed));
        Assert.True(float.IsNaN(halves[0].Mean));
        Assert.Equal(float.PositiveInfinity, halves[1].Mean);
    }

    [Fact]
    public void A_resume_supersedes_what_came_after_its_checkpoint_and_smooths_anew()
    {
        MetricColumns columns = Columns((1, 4), (2, 4), (3, 100), (4, 100));
        columns.BeginSegment(2);
        columns.Add(Scribe.Step(3, 8));
        columns.Add(Scribe.Step(4, 8));
        columns.Add(Scribe.Step(5, 8));
        columns.BeginSegment(4);
        columns.Add(Scribe.Step(5, 6));
        List<SeriesBucket> buckets = Compute(columns, new("train/loss", SeriesAxis.Step, null, null, 10, 0.9));
        Assert.Equal([(1.0, 4f), (2, 4), (3, 8), (4, 8), (5, 6)], buckets.Select(b => (b.X, b.Mean)));
        Assert.Equal([4f, 4, 8, 8, 6], buckets.Select(b => MathF.Round(b.Smoothed, 4)));
    }

    [Fact]
    public void A_later_resume_from_the_very_beginning_supersedes_all_before()
    {
        MetricColumns columns = Columns((1, 4), (2, 4));
        columns.BeginSegment(1);
        columns.Add(Scribe.Step(2, 5));
        columns.BeginSegment(0);
        columns.Add(Scribe.Step(1, 6));
        Assert.Equal([(1.0, 6f)], columns.Points("train/loss", SeriesAxis.Step).Select(p => (p.X, p.Y)));
    }

    [Theory]
    [InlineData("step", 3.0)]
    [InlineData("tokens", 17e9)]
    [InlineData("wall", 1000.25)]
    public void The_axis_keeps_its_precision(string axis, double expected)
    {
        MetricColumns columns = new();
        columns.Add(new MetricsEvent(3, 100, 17_000_000_000, null, new Dictionary<string, double> { ["a"] = 1 }) { Time = DateTimeOffset.UnixEpoch.AddSeconds(1000.25) });
        Assert.Equal(expected, Compute(columns, new("a", Enum.Parse<SeriesAxis>(axis, ignoreCase: true), null, null, 10, 0)).Single().X);
    }

    [Fact]
    public void The_bytes_are_little_endian_and_complete()
    {
        byte[] bytes = SeriesBuckets.ToBytes([new(1.5, 2, 3, 2.5f, 2.25f), new(2, float.NaN, float.NaN, float.NaN, 0)]);
        Assert.Equal(4 + 2 * 24, bytes.Length);
        Assert.Equal((2, 1.5, 2f, 3f, 2.5f, 2.25f), (BitConverter.ToInt32(bytes, 0), BitConverter.ToDouble(bytes, 4), BitConverter.ToSingle(bytes, 12), BitConverter.ToSingle(bytes, 16), BitConverter.ToSingle(bytes, 20), BitConverter.ToSingle(bytes, 24)));
    }

    private static List<SeriesBucket> Compute(MetricColumns columns, SeriesQuery query) => SeriesBuckets.Compute(columns.Points(query.Metric, query.Axis), query);

    private static MetricColumns Columns(params (long Step, double Loss)[] points)
    {
        MetricColumns columns = new();
        foreach ((long step, double loss) in points) columns.Add(Scribe.Step(step, loss));
        return columns;
    }
}
