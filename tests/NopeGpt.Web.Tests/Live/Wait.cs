using System.Diagnostics;

namespace NopeGpt.Web.Tests.Live;

internal static class Wait
{
    public static readonly TimeSpan Longest = TimeSpan.FromSeconds(30);

    public static async Task UntilAsync(Func<bool> condition, string what)
    {
        Stopwatch waited = Stopwatch.StartNew();
        while (!condition())
        {
            if (waited.Elapsed > Longest) throw new TimeoutException($"never came: {what}");
            await Task.Delay(10);
        }
    }
}
