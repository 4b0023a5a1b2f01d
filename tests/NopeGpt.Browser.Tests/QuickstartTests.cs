using System.Text.Json;
using Microsoft.Playwright;
using NopeGpt.Tests;
using static Microsoft.Playwright.Assertions;

namespace NopeGpt.Browser.Tests;

/// <summary>From an empty store to a conversation, in a real browser, with the real trainer and the real model process.</summary>
public sealed class QuickstartTests(DashboardFixture fixture) : IClassFixture<DashboardFixture>
{
    private const float Training = 300_000, Reply = 90_000;

    // The data that a chart shows, as js/chart.js keeps it on the chart's element.
    private const string LossOfChart = "() => { const chart = document.querySelector('[data-title=\"Loss\"]')?.chartData; return chart ? chart.series['train/loss'].mean : []; }";

    [NeedsFact(Needs.Chromium)]
    public async Task One_click_trains_a_model_shows_how_it_learns_and_leads_to_a_talk_with_it()
    {
        await using Window window = await fixture.OpenAsync(1440, 900);
        IPage page = window.Page;
        await page.GotoAsync("/?size=tiny");
        await Expect(page.GetByRole(AriaRole.Heading, new() { Level = 1 })).ToHaveTextAsync("Train your first model");
        await page.GetByRole(AriaRole.Button, new() { Name = "Train your first model" }).ClickAsync();
        await Expect(page.Locator("[data-kind]")).ToHaveCountAsync(3);

        // Numbers come into the chart while the model learns.
        await page.WaitForFunctionAsync($"() => ({LossOfChart})().length >= 3", null, new() { Timeout = Training });
        double[] loss = await LossAsync(page);
        Assert.All(loss, value => Assert.InRange(value, 0.1, 10));
        // And go on coming, unless the run is over already, as it may be on a fast machine.
        await page.WaitForFunctionAsync($"() => ({LossOfChart})().length > {loss.Length} || location.pathname === '/chat'", null, new() { Timeout = Training });

        // The chat opens by itself when everything is done.
        await page.WaitForURLAsync(new System.Text.RegularExpressions.Regex("/chat\\?model="), new() { Timeout = Training });
        string model = page.Url.Split("model=")[1];
        await page.Locator("[data-prompt]").FillAsync("Once upon a time");
        await page.Locator("[data-prompt]").PressAsync("Enter");
        await Expect(page.Locator("[data-figures]")).ToContainTextAsync("tok/s", new() { Timeout = Reply });
        Assert.True((await page.Locator(".turn.model .words").InnerTextAsync()).Trim().Length > 0);

        // The run's page: the whole curve, falling, with its numbers beside it.
        await page.GotoAsync($"/runs/{model}");
        await page.WaitForFunctionAsync($"() => ({LossOfChart})().length > 10");
        loss = await LossAsync(page);
        Assert.True(loss[^1] < loss[0], $"the loss went from {loss[0]} to {loss[^1]}");
        await page.GetByText("Numbers", new() { Exact = true }).ClickAsync();
        string shown = await page.Locator("[data-metric='train/loss'] td").InnerTextAsync();
        Assert.Equal(loss[^1], double.Parse(shown), 2);
        await Expect(page.Locator("[data-log]")).Not.ToBeEmptyAsync();

        await ZoomsAsync(page);
        await KeepsItsWidthAsync(model);
        Assert.Empty(window.Mistakes);
    }

    private static async Task ZoomsAsync(IPage page)
    {
        ILocator chart = page.Locator("[data-title='Loss'] .u-over");
        await chart.ScrollIntoViewIfNeededAsync();
        LocatorBoundingBoxResult box = (await chart.BoundingBoxAsync())!;
        await page.Mouse.MoveAsync(box.X + (box.Width * 0.25f), box.Y + (box.Height / 2));
        await page.Mouse.DownAsync();
        await page.Mouse.MoveAsync(box.X + (box.Width * 0.75f), box.Y + (box.Height / 2), new() { Steps = 5 });
        await page.Mouse.UpAsync();
        await Expect(page.GetByRole(AriaRole.Button, new() { Name = "Show the whole run" })).ToBeVisibleAsync();
        await page.WaitForFunctionAsync("() => document.querySelector('[data-title=\"Loss\"]').chartData.from > 0");
        double[] range = await page.EvaluateAsync<double[]>("() => { const c = document.querySelector('[data-title=\"Loss\"]').chartData; return [c.from, c.to]; }");
        Assert.InRange(range[0], 20, 40);
        Assert.InRange(range[1], 80, 100);
        await page.Mouse.DblClickAsync(box.X + (box.Width / 2), box.Y + (box.Height / 2));
        await Expect(page.GetByRole(AriaRole.Button, new() { Name = "Show the whole run" })).ToBeHiddenAsync();
    }

    private async Task KeepsItsWidthAsync(string run)
    {
        foreach (ColorScheme colors in new[] { ColorScheme.Light, ColorScheme.Dark })
        {
            await using Window phone = await fixture.OpenAsync(390, 844, colors);
            foreach (string address in new[] { "/", "/runs", $"/runs/{run}", "/runs/new", "/tokenizers", "/tokenizers/train", "/chat", "/nothing-here" })
            {
                await phone.Page.GotoAsync(address);
                await phone.Page.Locator(".shell[data-live] main h1").WaitForAsync();
                Assert.True(await phone.OverflowAsync() <= 0, $"{address} is wider than a phone");
            }
            Assert.Equal(colors == ColorScheme.Dark ? "dark" : "light", await phone.Page.Locator("html").GetAttributeAsync("data-theme"));
            // The page that does not exist is answered with 404, as it should be.
            Assert.DoesNotContain(phone.Mistakes, m => !m.Contains("404", StringComparison.Ordinal));
        }
    }

    [NeedsFact(Needs.Chromium)]
    public async Task The_choice_of_the_theme_outlives_a_reload()
    {
        await using Window window = await fixture.OpenAsync(1440, 900, ColorScheme.Light);
        await window.Page.GotoAsync("/runs");
        await window.Page.GetByRole(AriaRole.Button, new() { Name = "Switch to the dark theme" }).ClickAsync();
        await Expect(window.Page.GetByRole(AriaRole.Button, new() { Name = "Switch to the light theme" })).ToBeVisibleAsync();
        await window.Page.ReloadAsync();
        await Expect(window.Page.GetByRole(AriaRole.Button, new() { Name = "Switch to the light theme" })).ToBeVisibleAsync();
        Assert.Equal("dark", await window.Page.Locator("html").GetAttributeAsync("data-theme"));
        Assert.Empty(window.Mistakes);
    }

    [NeedsFact(Needs.Chromium)]
    public async Task Every_control_has_a_name_and_the_keyboard_begins_at_the_content()
    {
        await using Window window = await fixture.OpenAsync(1440, 900);
        foreach (string address in new[] { "/", "/runs", "/runs/new", "/tokenizers", "/tokenizers/train", "/chat" })
        {
            await window.Page.GotoAsync(address);
            await window.Page.Locator(".shell[data-live] main h1").WaitForAsync();
            string[] nameless = await window.Page.EvaluateAsync<string[]>("""
                () => [...document.querySelectorAll('button, a[href], input, select, textarea')]
                  .filter(e => e.checkVisibility() && !(e.getAttribute('aria-label') || e.textContent.trim() || e.title || (e.labels && e.labels.length)))
                  .map(e => e.outerHTML)
                """);
            Assert.Empty(nameless);
        }
        await window.Page.GotoAsync("/");
        await window.Page.Locator(".shell[data-live] main h1").WaitForAsync();
        await window.Page.Keyboard.PressAsync("Tab");
        await Expect(window.Page.GetByText("Skip to the content")).ToBeFocusedAsync();
        // Within the dashboard a new page begins at its heading, so that the next stop of the Tab key is its content.
        await window.Page.Locator("nav a[href=runs]").ClickAsync();
        await Expect(window.Page.GetByRole(AriaRole.Heading, new() { Name = "Runs", Level = 1 })).ToBeFocusedAsync();
        Assert.Empty(window.Mistakes);
    }

    [NeedsFact(Needs.Chromium)]
    public async Task What_is_typed_quickly_becomes_tokens_that_the_keyboard_reaches()
    {
        const string Text = "The tokens of hello world";
        await using Window window = await fixture.OpenAsync(1440, 900);
        IPage page = window.Page;
        await page.GotoAsync("/tokenizers?tokenizer=cl100k_base");
        await Expect(page.Locator("[data-compared]").First).ToBeVisibleAsync();
        await page.Locator("#text").FillAsync("");
        await page.Locator("#text").PressSequentiallyAsync(Text);
        await Expect(page.Locator("[data-tokens] li")).ToHaveTextAsync(["The", "·tokens", "·of", "·hello", "·world"]);
        await Expect(page.Locator("#text")).ToHaveValueAsync(Text);
        Assert.Contains("text=The+tokens", page.Url, StringComparison.Ordinal);
        await Expect(page.Locator("#text")).ToBeFocusedAsync();

        await page.Locator("#text").PressAsync("Tab");
        await Expect(page.Locator("[data-detail]")).ToContainTextAsync("Token 1");
        await page.Keyboard.PressAsync("End");
        await Expect(page.Locator("[data-detail] dd")).ToHaveTextAsync(["1917", "20 77 6F 72 6C 64", "·world"]);
        await page.Keyboard.PressAsync("Escape");
        await Expect(page.Locator("[data-detail]")).ToBeHiddenAsync();
        await page.ReloadAsync();
        await Expect(page.Locator("#text")).ToHaveValueAsync(Text);
        Assert.Empty(window.Mistakes);
    }

    private static async Task<double[]> LossAsync(IPage page)
    {
        JsonElement? values = await page.EvaluateAsync(LossOfChart);
        return values is { } found ? [.. found.EnumerateArray().Select(v => v.GetDouble())] : [];
    }
}
