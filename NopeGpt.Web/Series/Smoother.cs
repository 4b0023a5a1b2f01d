namespace NopeGpt.Web.Series;

/// <summary>The moving average of TensorBoard's charts: last = last·w + (1 - w)·y, divided by 1 - wⁿ so that the start is not drawn to 0.
/// Values that are not finite pass through and change nothing. Begins anew with each segment.</summary>
internal sealed class Smoother(double weight)
{
    private double _last;
    private double _rest = 1; // wⁿ
    private int _segment = -1;

    public double Next(SeriesPoint point)
    {
        if (point.Segment != _segment) (_last, _rest, _segment) = (0, 1, point.Segment);
        if (!float.IsFinite(point.Y) || weight == 0) return point.Y;
        _last = _last * weight + (1 - weight) * point.Y;
        _rest *= weight;
        return _last / (1 - _rest);
    }
}
