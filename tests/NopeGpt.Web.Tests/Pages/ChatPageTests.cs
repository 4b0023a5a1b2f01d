using Bunit;
using NopeGpt.Jobs;
using NopeGpt.Web.Components.Pages;
using NopeGpt.Web.Tests.Live;

namespace NopeGpt.Web.Tests.Pages;

public sealed class ChatPageTests
{
    [Fact]
    public async Task Without_a_model_the_chat_says_how_to_get_one()
    {
        await using PageHost host = await PageHost.StartAsync();
        IRenderedComponent<ChatPage> page = host.Page.Render<ChatPage>();
        page.WaitForAssertion(() => Assert.Equal("No model to talk to yet", page.Find("h1").TextContent));
    }

    [Fact]
    public async Task A_text_is_continued_with_figures_under_it_and_can_be_changed()
    {
        await using PageHost host = await PageHost.StartAsync(store => Story.Training(store, "Story model", RunState.Completed));
        IRenderedComponent<ChatPage> page = host.Page.Render<ChatPage>();
        page.WaitForAssertion(() => Assert.Contains("it has learned to continue text", page.Markup, StringComparison.Ordinal));
        Assert.Equal(4, page.FindAll(".suggestion").Count);

        await page.InvokeAsync(() => page.Instance.SendAsync("one two <b>three</b>"));
        page.WaitForAssertion(() => Assert.Equal("one two <b>three</b> ", page.Find(".turn.model .words").TextContent), Wait.Longest);
        Assert.Contains("3 tokens", page.Find("[data-figures]").TextContent, StringComparison.Ordinal);
        Assert.Contains("seed 77", page.Find("[data-figures]").TextContent, StringComparison.Ordinal);

        await page.FindAll("button").Single(b => b.TextContent == "Change my text").ClickAsync(new());
        Assert.Empty(page.FindAll(".turn"));
    }

    [Fact]
    public async Task The_same_text_can_be_said_twice()
    {
        await using PageHost host = await PageHost.StartAsync(store => Story.Training(store, "Story model", RunState.Completed));
        IRenderedComponent<ChatPage> page = host.Page.Render<ChatPage>();
        page.WaitForElement("[data-prompt]");
        foreach (int turns in new[] { 2, 4 })
        {
            await page.InvokeAsync(() => page.Instance.SendAsync("again"));
            page.WaitForAssertion(() => Assert.Equal(turns, page.FindAll(".turn .words").Count(w => w.TextContent.Trim() == "again")), Wait.Longest);
        }
    }

    [Fact]
    public async Task The_checkpoint_is_chosen_by_the_address_and_the_list()
    {
        Scribe run = null!;
        await using PageHost host = await PageHost.StartAsync(store => run = Story.Training(store, "Story model", RunState.Completed));
        host.Open($"/chat?model={run.Id}/000000050");
        IRenderedComponent<ChatPage> page = host.Page.Render<ChatPage>();
        page.WaitForAssertion(() => Assert.Equal("000000050", page.Find("#checkpoint").GetAttribute("value")));
        page.Find("#checkpoint").Change("000000100");
        Assert.EndsWith($"chat?model={run.Id}/000000100", host.Address, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_model_process_that_does_not_start_is_told_in_the_conversation_with_another_try()
    {
        await using PageHost host = await PageHost.StartAsync(store => Story.Training(store, "Story model", RunState.Completed), root: "refuse-to-start");
        IRenderedComponent<ChatPage> page = host.Page.Render<ChatPage>();
        page.WaitForAssertion(() => Assert.NotNull(page.Find("[data-prompt]")));
        await page.InvokeAsync(() => page.Instance.SendAsync("hello"));
        page.WaitForAssertion(() => Assert.Contains("no room for the model", page.Find("[role=alert]").TextContent, StringComparison.Ordinal), Wait.Longest);
        Assert.Contains(page.FindAll("button"), b => b.TextContent == "Try again");
    }

    [Fact]
    public async Task A_seed_that_is_no_number_is_refused_beside_its_field()
    {
        await using PageHost host = await PageHost.StartAsync(store => Story.Training(store, "Story model", RunState.Completed));
        IRenderedComponent<ChatPage> page = host.Page.Render<ChatPage>();
        page.WaitForElement("#seed").Change("seven");
        Assert.Contains("A seed is a whole number", page.Markup, StringComparison.Ordinal);
        page.Find("#seed").Change("7");
        Assert.DoesNotContain("A seed is a whole number", page.Markup, StringComparison.Ordinal);
    }
}
