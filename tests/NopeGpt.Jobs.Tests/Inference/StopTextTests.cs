using NopeGpt.Jobs.Inference;

namespace NopeGpt.Jobs.Tests.Inference;

public sealed class StopTextTests
{
    [Theory]
    [InlineData(new[] { "Hello wor", "ld\nUser", ": hi" }, new[] { "\nUser:" }, "Hello world", true)]
    [InlineData(new[] { "aab", "ab", "c" }, new[] { "abc" }, "aab", true)]
    [InlineData(new[] { "aa", "a", "b" }, new[] { "aab" }, "a", true)]
    [InlineData(new[] { "one ST", "and two" }, new[] { "STOP" }, "one STand two", false)]
    [InlineData(new[] { "one ST" }, new[] { "STOP" }, "one ST", false)]
    [InlineData(new[] { "xyz" }, new[] { "z", "y" }, "x", true)]
    [InlineData(new[] { "free", " text" }, new string[0], "free text", false)]
    public void A_text_ends_before_the_first_stop_text_however_it_is_cut(string[] pieces, string[] stops, string expected, bool found)
    {
        StopText stop = new(stops);
        string text = string.Concat(pieces.Select(stop.Push)) + stop.Flush();
        Assert.Equal(expected, text);
        Assert.Equal(found, stop.Found);
    }

    [Fact]
    public void What_cannot_be_the_beginning_of_a_stop_text_is_not_held_back()
    {
        StopText stop = new(["###"]);
        Assert.Equal("a ", stop.Push("a #"));
        Assert.Equal("#b", stop.Push("b"));
    }

    [Fact]
    public void Nothing_comes_after_a_stop_text()
    {
        StopText stop = new(["."]);
        Assert.Equal("End", stop.Push("End. More"));
        Assert.Equal("", stop.Push("and more"));
        Assert.Equal("", stop.Flush());
    }
}
