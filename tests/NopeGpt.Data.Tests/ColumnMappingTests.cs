using NopeGpt.Data.Documents;

namespace NopeGpt.Data.Tests;

public sealed class ColumnMappingTests
{
    [Theory]
    [InlineData("text,id,dump,url", "text=text")]
    [InlineData("Content,Title", "text=Content")]
    [InlineData("messages,source", "messages=messages")]
    [InlineData("conversations,id,system", "messages=conversations,system=system")]
    [InlineData("instruction,input,output,text", "prompt=instruction,input=input,completion=output")]
    [InlineData("prompt,completion", "prompt=prompt,completion=completion")]
    [InlineData("prompt,prompt_id,chosen,rejected,messages,score_chosen", "prompt=prompt,chosen=chosen,rejected=rejected")]
    [InlineData("chosen,rejected", "chosen=chosen,rejected=rejected")]
    [InlineData("anything", "text=anything")]
    public void Well_known_columns_are_recognised(string columns, string expected) => Assert.Equal(expected, ColumnMapping.Guess(columns.Split(',')).ToString());

    [Theory]
    [InlineData("prompt,chosen,rejected,messages", DatasetKind.Chat, "messages=messages")]
    [InlineData("instruction,input,output,text", DatasetKind.Text, "text=text")]
    [InlineData("messages,chosen,rejected", DatasetKind.Preference, "messages=messages,chosen=chosen,rejected=rejected")]
    public void The_kind_decides_where_several_would_do(string columns, DatasetKind kind, string expected) => Assert.Equal(expected, ColumnMapping.Guess(columns.Split(','), kind).ToString());

    [Fact]
    public void Unknown_columns_are_listed_with_an_example()
    {
        string message = Assert.Throws<InvalidDataException>(() => ColumnMapping.Guess(["alpha", "beta"], DatasetKind.Chat, "my.csv")).Message;
        Assert.Contains("my.csv has the columns \"alpha\", \"beta\"", message, StringComparison.Ordinal);
        Assert.Contains("messages=alpha", message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_mapping_is_written_and_read_as_pairs()
    {
        ColumnMapping mapping = ColumnMapping.Parse("prompt = question, completion=answer");
        Assert.Equal(new ColumnMapping { Prompt = "question", Completion = "answer" }, mapping);
        Assert.Equal(mapping, ColumnMapping.Parse(mapping.ToString()));
        Assert.Equal(["question", "answer"], mapping.Columns);
    }

    [Theory]
    [InlineData("text", "not of the form")]
    [InlineData("text=", "not of the form")]
    [InlineData("body=x", "no part \"body\"")]
    [InlineData("text=a,text=b", "names text twice")]
    [InlineData("chosen=a", "both chosen and rejected")]
    [InlineData("completion=a", "completion without a prompt")]
    [InlineData("system=a", "needs text, messages")]
    [InlineData("", "needs text, messages")]
    public void A_mapping_that_makes_no_sense_is_explained(string text, string reason) => Assert.Contains(reason, Assert.Throws<FormatException>(() => ColumnMapping.Parse(text)).Message, StringComparison.Ordinal);

    [Fact]
    public void Missing_columns_are_named_with_those_that_are_there()
    {
        string message = Assert.Throws<InvalidDataException>(() => new ColumnMapping { Text = "body" }.Check(["text", "id"], "my.parquet")).Message;
        Assert.Contains("my.parquet has no column \"body\"; it has \"text\", \"id\"", message, StringComparison.Ordinal);
    }
}
